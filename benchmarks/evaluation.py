"""Scoring one image at 2048x1024 with 19 classes, without the network: resize, argmax, confusion matrix.

Against the plain way: all logits at full size, argmax, and a loop over classes for intersections and unions. Both are
timed in one run, alternating, and their intersections and unions must be equal. Peak memory is that of a process each,
beyond the logits: python benchmarks/evaluation.py [--device cpu] [--runs 9] [--threads 1]
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

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.evaluate.confusion import confusion_matrix
from udabench.evaluate.prediction import predict_labels
from udabench.labels import IGNORE
from udabench.size import Size

CLASSES, SIZE = 19, Size(1024, 2048)


def scene(grid: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Logits and a truth that they resemble, a tenth of it unknown."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(1, CLASSES, *grid, generator=rng)
    truth = interpolate(logits, tuple(SIZE), mode="nearest").argmax(1)[0].to(torch.uint8)
    truth[: SIZE.height // 10] = IGNORE
    return logits.to(device), truth.to(device)


def blocked(logits: Tensor, truth: Tensor) -> Tensor:
    """2 C: intersections and unions."""
    matrix = confusion_matrix(truth, predict_labels(logits, SIZE)[0], CLASSES)
    inside = matrix.diagonal()
    return torch.stack([inside, matrix.sum(0) + matrix.sum(1) - inside])


def plain(logits: Tensor, truth: Tensor) -> Tensor:
    """The same, as it is first written."""
    prediction = interpolate(logits, tuple(SIZE), mode="bilinear", align_corners=False).argmax(1)[0]
    known = truth != IGNORE
    inside, union = [], []
    for index in range(CLASSES):
        predicted, true = (prediction == index) & known, truth == index
        inside.append((predicted & true).sum())
        union.append((predicted | true).sum())
    return torch.stack([torch.stack(inside), torch.stack(union)])


SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"blocked": blocked, "plain": plain}


def milliseconds(side: Callable[[Tensor, Tensor], Tensor], case: tuple[Tensor, Tensor]) -> float:
    start = time.perf_counter()
    side(*case).cpu()
    return 1e3 * (time.perf_counter() - start)


def peak(side: str, grid: tuple[int, ...], arguments: argparse.Namespace) -> float:
    """MiB beyond the logits, in a process of its own."""
    command = [sys.executable, __file__, "--peak", side, "--grid", *map(str, grid), "--device", arguments.device]
    # Large tensors go straight back to the system, so that none hides in what an earlier one left.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, check=True, text=True, env=environment)
    return float(done.stdout)


def measure_peak(side: str, grid: tuple[int, ...], device: str) -> float:
    logits, truth = scene((8, 16), device)
    SIDES[side](logits, truth)
    logits = torch.zeros(1, CLASSES, *grid, device=device).normal_()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        SIDES[side](logits, truth)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Forget the peak so far (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    SIDES[side](logits, truth)
    return status("VmHWM") - before


def status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--grid", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(measure_peak(arguments.peak, tuple(arguments.grid), arguments.device))
        return
    print(f"one image at {SIZE}, {CLASSES} classes, {arguments.device}, {arguments.threads} thread(s)")
    for title, grid in {"logits 256x128": (128, 256), "logits 2048x1024 (slide)": tuple(SIZE)}.items():
        compare(title, grid, arguments)


def compare(title: str, grid: tuple[int, ...], arguments: argparse.Namespace) -> None:
    case = scene(grid, arguments.device)
    equal = (SIDES["blocked"](*case) == SIDES["plain"](*case)).all()
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(arguments.runs):
        for name, side in SIDES.items():
            times[name].append(milliseconds(side, case))
    fast, slow = (median(times[name]) for name in SIDES)
    print(f"{title}: equal numbers: {'yes' if equal else 'NO'}")
    print(f"  blocked {fast:8.1f} ms   peak {peak('blocked', grid, arguments):7.1f} MiB beyond the logits")
    print(f"  plain   {slow:8.1f} ms   peak {peak('plain', grid, arguments):7.1f} MiB beyond the logits")
    print(f"  ratio   {slow / fast:8.1f}")


if __name__ == "__main__":
    main()
