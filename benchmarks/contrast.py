"""BiCL's contrast of one pair, forward and backward: sums over cells against the naive form at the label's size.

730x730 labels, features at 1/8 (92x92 cells, of which none divides 730), 19 classes. Both forms are timed in one run,
alternating; values and gradients must agree to 1e-4 of the largest (float32 sums over half a million pixels; the tests
hold 1e-5 in float64):
python benchmarks/contrast.py [--device cpu] [--runs 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from udabench_bicl.config import BiCLConfig
from udabench_bicl.losses import contrast_loss

from udabench.parts.prototypes import cell_counts, class_means, cosine_to, spread_cells

CLASSES, SIZE, GRID, TOLERANCE = 19, (730, 730), (92, 92), 1e-4
LIMITS = {76: 60, 2048: 600}
"""Channels (of the head's branches, of the encoder) -> milliseconds that the contrast may take on two cores."""
CONFIG = BiCLConfig()


class Pair(NamedTuple):
    """Features 1 D h w and labels 1 H W of both domains."""

    source: Tensor
    target: Tensor
    source_label: Tensor
    target_label: Tensor


def scene(channels: int, device: str) -> Pair:
    """Blocks of classes; of the target three pixels in five are unknown, and two classes are absent from either."""
    rng = torch.Generator().manual_seed(0)
    blocks = torch.randint(CLASSES - 2, (2, 24, 24), generator=rng)
    labels = spread_cells(blocks + torch.tensor([0, 2])[:, None, None], SIZE)
    unknown = torch.rand(SIZE, generator=rng) < 0.6
    source, target = (torch.rand(1, channels, *GRID, generator=rng).to(device).requires_grad_() for _ in range(2))
    return Pair(source, target, labels[:1].to(device), labels[1:].masked_fill(unknown, 255).to(device))


def by_cells(pair: Pair) -> Tensor:
    """The project's own."""
    near, far = (cell_counts(label, CLASSES, GRID) for label in pair[2:])
    rho_source, rho_target = class_means(pair.source, near), class_means(pair.target, far)
    forward = contrast_loss(CONFIG, cosine_to(pair.target, rho_source.means), far, rho_source.present)
    return forward + contrast_loss(CONFIG, cosine_to(pair.source, rho_target.means), near, rho_target.present)


def naive(pair: Pair) -> Tensor:
    """Prototypes and cosines are products of matrices too; cosines are upsampled, with a softmax for every pixel."""
    sides = ((pair.target, pair.target_label, pair.source, pair.source_label),)
    sides += ((pair.source, pair.source_label, pair.target, pair.target_label),)
    return sum((_one_way(*side) for side in sides), torch.zeros((), device=pair.source.device))


def _one_way(features: Tensor, label: Tensor, others: Tensor, other_label: Tensor) -> Tensor:
    """Pixels of one domain against the prototypes of the other."""
    rows = F.interpolate(torch.arange(GRID[0], dtype=torch.float32)[None, None], SIZE[0])[0, 0].long()
    pixels = F.one_hot(other_label[0].clamp(max=CLASSES), CLASSES + 1)[..., :CLASSES].float()
    masks = torch.zeros(*GRID, CLASSES, device=label.device)
    masks.index_put_((rows[:, None].to(label.device), rows.to(label.device)), pixels, accumulate=True)
    count = masks.sum((0, 1))
    means = torch.einsum("dhw,hwc->cd", others[0], masks) / count.clamp(min=1)[:, None]
    cosine = torch.einsum("cd,dhw->chw", F.normalize(means, dim=1), F.normalize(features[0], dim=0))
    logits = (cosine / CONFIG.temperature).masked_fill((count == 0)[:, None, None], torch.finfo(torch.float32).min)
    known = torch.cat([count > 0, count.new_zeros(256 - CLASSES, dtype=torch.bool)])
    wanted = label.masked_fill(~known[label], 255)
    return F.cross_entropy(F.interpolate(logits[None], SIZE, mode="nearest"), wanted, ignore_index=255)


SIDES: dict[str, Callable[[Pair], Tensor]] = {"by cells": by_cells, "naive": naive}


def step(side: str, pair: Pair) -> list[Tensor]:
    """The value and both gradients."""
    value = SIDES[side](pair)
    return [value.detach(), *torch.autograd.grad(value, [pair.source, pair.target])]


def milliseconds(side: str, pair: Pair) -> tuple[float, float]:
    """On the clock, and of all processors together: what others do on the machine is not in it."""
    start, worked = time.perf_counter(), time.process_time()
    step(side, pair)[-1].sum().item()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - worked)


def compare(channels: int, arguments: argparse.Namespace) -> bool:
    """Print the case; whether both agree."""
    pair = scene(channels, arguments.device)
    apart = max(
        float((own - other).abs().max() / other.abs().max())
        for own, other in zip(*(step(side, pair) for side in SIDES), strict=True)
    )
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.runs):
        for side in SIDES:
            times[side].append(milliseconds(side, pair))
    print(f"{channels} channels (limit {LIMITS[channels]} ms); apart by {apart:.1e}")
    clock, work = zip(*([median(kind) for kind in zip(*times[side], strict=True)] for side in SIDES), strict=True)
    for side, spent, worked in zip(SIDES, clock, work, strict=True):
        print(f"  {side:8} {spent:8.1f} ms   processors {worked:8.1f} ms")
    print(f"  ratio    {clock[1] / clock[0]:8.2f}                  {work[1] / work[0]:8.2f}", flush=True)
    return apart < TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"FCL + BCL of a pair at {SIZE[1]}x{SIZE[0]}, {arguments.device}, {arguments.threads} thread(s)")
    agreed = [compare(channels, arguments) for channels in LIMITS]
    if not all(agreed):
        raise SystemExit(f"Apart by {TOLERANCE:.0e} or more")


if __name__ == "__main__":
    main()
