"""Time of L_pull, forward and backward, at the size of ResNet-101's features, against a plain loop over classes.

Both do all of it in each run: prototypes, weights, sampling, negatives, InfoNCE and the gradient of the features.
Prints milliseconds and their ratio: python benchmarks/pull_loss.py [--device cpu] [--runs 9] [--threads 2]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from udabench_t2sda.config import T2SDAConfig
from udabench_t2sda.contrast import Target, View, pull
from udabench_t2sda.pull import class_weights, mean_confidence

CLASSES, CHANNELS, POSITIONS, PIXELS = 19, 256, 2 * 64 * 64, 2 * 512 * 512
CONFIG = T2SDAConfig()
SHARES = torch.tensor(
    [33.8, 3.2, 20.4, 0.9, 0.9, 2.8, 0.3, 0.7, 14.8, 0.8, 6.2, 0.9, 0.3, 9.8, 1.3, 1.0, 1.0, 0.3, 0.5]
)
"""Pixels of a street scene in percent: a long tail, as in the data sets."""


class Scene:
    """Made-up features, labels and confidences."""

    def __init__(self, device: str) -> None:
        rng = torch.Generator().manual_seed(0)
        features = [torch.rand(POSITIONS, CHANNELS, generator=rng).to(device) for _ in range(3)]
        labels = [torch.multinomial(SHARES, POSITIONS, True, generator=rng).to(device) for _ in range(2)]
        self.query = View(features[0].requires_grad_(), labels[0])
        self.source = View(features[1], labels[0])
        self.target = Target(View(features[2], labels[1]), torch.rand(POSITIONS, generator=rng).to(device))
        self.pseudo = torch.multinomial(SHARES, PIXELS, True, generator=rng).to(device)
        self.confidence = torch.rand(PIXELS, generator=rng).to(device)


def vectorised(scene: Scene, rng: torch.Generator) -> Tensor:
    """The project's own."""
    means = mean_confidence(scene.confidence, scene.pseudo, CLASSES)
    weigh = lambda used: class_weights(*means, used, CONFIG.drw_exponent)  # noqa: E731
    return pull(CONFIG, CLASSES, scene.query, scene.source, scene.source, scene.target, weigh, rng)


def looped(scene: Scene, rng: torch.Generator) -> Tensor:
    """Algorithm 1 with its formulas mended: one class after the other, boolean masks, indices by torch.randint."""
    label, chosen = scene.source.label, scene.target.view.label
    doubt = torch.stack([1 - scene.confidence[scene.pseudo == c].mean() for c in range(CLASSES)])
    weights = (doubt / doubt.max()) ** CONFIG.drw_exponent
    weights = weights / weights.sum()
    unreliable = scene.target.confidence < torch.quantile(scene.target.confidence, CONFIG.unreliable)
    query = F.normalize(scene.query.features, dim=1)
    keys, others = F.normalize(scene.source.features, dim=1), F.normalize(scene.target.view.features, dim=1)
    total = query.new_zeros(())
    for c in range(CLASSES):
        mine = query[label == c]
        count = math.ceil(CLASSES * len(mine) / len(label) * CONFIG.queries)
        mine = mine[_some(len(mine), count, rng, query)]
        prototype = F.normalize(scene.source.features[label == c].mean(0), dim=0)
        half = CONFIG.negatives // 2
        near, far = keys[label != c], others[(chosen != c) & unreliable]
        negatives = torch.cat([near[_some(len(near), half, rng, query)], far[_some(len(far), half, rng, query)]])
        logits = torch.cat([(mine @ prototype).unsqueeze(1), mine @ negatives.T], 1) / CONFIG.temperature
        total = total + weights[c] * F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.int64))
    return total


def _some(among: int, count: int, rng: torch.Generator, like: Tensor) -> Tensor:
    return torch.randint(among, (count,), generator=rng).to(like.device)


def milliseconds(function: Callable[[Scene, torch.Generator], Tensor], scene: Scene, runs: int) -> tuple[float, float]:
    """Median over ``runs`` after two for warming up, and the mean value of the loss."""
    rng = torch.Generator().manual_seed(1)
    times, values = [], []
    for _ in range(runs + 2):
        scene.query.features.grad = None
        _wait(scene)
        start = time.perf_counter()
        loss = function(scene, rng)
        loss.backward()
        _wait(scene)
        times.append(1000 * (time.perf_counter() - start))
        values.append(loss.item())
    return sorted(times[2:])[runs // 2], sum(values) / len(values)


def _wait(scene: Scene) -> None:
    if scene.confidence.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scene = Scene(arguments.device)
    ours, value = milliseconds(vectorised, scene, arguments.runs)
    theirs, other = milliseconds(looped, scene, arguments.runs)
    print(f"L_pull, forward and backward, {arguments.device}, {arguments.threads} threads: {POSITIONS} positions,")
    print(f"{CHANNELS} channels, {CLASSES} classes, n = {CONFIG.queries}, m = {CONFIG.negatives}")
    print(f"vectorised  {ours:8.1f} ms   loss {value:.4f}")
    print(f"class loop  {theirs:8.1f} ms   loss {other:.4f}")
    print(f"ratio       {theirs / ours:8.2f} times as fast as the loop")


if __name__ == "__main__":
    main()
