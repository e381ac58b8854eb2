"""SAM's attention between all positions, forward and backward: in blocks against the dense form.

Both are timed in one run, alternating; values and gradients must agree to 1e-5 of the largest. Peak memory is that of
a process each, beyond the inputs: python benchmarks/attention.py [--device cpu] [--runs 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.parts.attention import attend

CLASSES, WIDTH, LIMIT, TOLERANCE = 19, 256, 1024, 1e-5
SIZES = {
    "DeepLab at 512x256": (33, 65), "DeepLab at 1024x512": (65, 129), "FCN-8s at 1024x512": (138, 74),
}  # fmt: skip


class Case(NamedTuple):
    """Queries, values, and the gradient of what becomes of them."""

    query: Tensor
    value: Tensor
    gradient: Tensor


def scene(size: tuple[int, ...], device: str) -> Case:
    rng = torch.Generator().manual_seed(0)
    query, value, gradient = (torch.randn(1, count, *size, generator=rng) for count in (WIDTH, CLASSES, CLASSES))
    return Case(query.to(device).requires_grad_(), value.to(device).requires_grad_(), gradient.to(device))


def dense(query: Tensor, value: Tensor) -> Tensor:
    """Equations 4 to 7 as they are written."""
    unit = F.normalize(query.flatten(2), dim=1)
    positive = (unit.mT @ unit).relu()
    weights = positive / positive.sum(2, keepdim=True)
    return (weights @ value.flatten(2).mT).mT.reshape(value.shape)


SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"blocks": attend, "dense": dense}


def step(side: str, case: Case) -> list[Tensor]:
    """The result and both gradients."""
    result = SIDES[side](case.query, case.value)
    return [result.detach(), *torch.autograd.grad(result, [case.query, case.value], case.gradient)]


def milliseconds(side: str, case: Case) -> float:
    start = time.perf_counter()
    step(side, case)[-1].sum().item()
    return 1e3 * (time.perf_counter() - start)


def difference(case: Case) -> float:
    """The largest, over the largest value."""
    pairs = zip(*(step(side, case) for side in SIDES), strict=True)
    return max(float((own - other).abs().max() / other.abs().max()) for own, other in pairs)


def peak(side: str, size: tuple[int, ...], arguments: argparse.Namespace) -> float:
    """MiB beyond the inputs, in a process of its own."""
    command = [sys.executable, __file__, "--peak", side, "--size", *map(str, size), "--device", arguments.device]
    # Large tensors go straight back to the system, so that none hides in what an earlier one left.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command += ["--threads", str(arguments.threads)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout)


def measure_peak(side: str, size: tuple[int, ...], device: str) -> float:
    step(side, scene((8, 16), device))
    case = scene(size, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step(side, case)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    # Forget the peak so far (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    step(side, case)
    return status("VmHWM") - before


def status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def compare(title: str, size: tuple[int, ...], arguments: argparse.Namespace) -> bool:
    """Print the case; whether it agrees and keeps within the limit."""
    case = scene(size, arguments.device)
    apart = difference(case)
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.runs):
        for side in SIDES:
            times[side].append(milliseconds(side, case))
    took = [median(times[side]) for side in SIDES]
    peaks = [peak(side, size, arguments) for side in SIDES]
    print(f"{title}: {size[0]} x {size[1]} = {size[0] * size[1]} positions; apart by {apart:.1e}")
    for side, spent, memory in zip(SIDES, took, peaks, strict=True):
        print(f"  {side:7} {spent:8.0f} ms   peak {memory:7.0f} MiB beyond the inputs")
    print(f"  ratio   {took[1] / took[0]:8.2f}           {peaks[1] / peaks[0]:7.1f}", flush=True)
    return apart < TOLERANCE and peaks[0] < LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(measure_peak(arguments.peak, tuple(arguments.size), arguments.device))
        return
    print(f"{WIDTH} channels, {CLASSES} classes, {arguments.device}, {arguments.threads} thread(s)")
    kept = [compare(title, size, arguments) for title, size in SIZES.items()]
    if not all(kept):
        raise SystemExit(f"Apart by {TOLERANCE:.0e} or more, or not under {LIMIT} MiB")


if __name__ == "__main__":
    main()
