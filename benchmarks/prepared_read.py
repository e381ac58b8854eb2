"""Reading a prepared sample against decoding and resizing the PNG pair, in one run, on the same samples.

Reads GTA5 frames under ``$UDABENCH_DATA`` (``gta5`` or ``native/gta5``); without them, frames that are drawn for the
purpose at GTA5's size. Both sides are read from the page cache, so that the disk plays no part, and both end with an
image and a label of their own in memory; the prepared side includes its checksums.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageFilter
from udabench_gta5.dataset import Gta5

from udabench.data.resize import Resized
from udabench.data.store import prepare
from udabench.size import Size

TARGET = 20.0
REPEATS = 7
FRAME = Size(height=1052, width=1914)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw, origin = find_frames(Path(folder))
        size = Gta5.train_size
        stored = prepare(raw, size, Path(folder) / "store")
        names = raw.names[:8]
        slow, fast = compare(reader(Resized(raw, size), names), reader(Resized(stored, size), names))
    print(f"{len(names)} samples, {origin}, at {size}; medians of {REPEATS} passes, alternating")
    print(f"decode and resize  {1e3 * slow / len(names):8.2f} ms a sample")
    print(f"prepared           {1e3 * fast / len(names):8.2f} ms a sample")
    print(f"ratio              {slow / fast:8.1f} (target: at least {TARGET:.0f})")
    if slow / fast < TARGET:
        raise SystemExit(1)


def reader(images: Resized, names: tuple[str, ...]) -> Callable[[], None]:
    """One pass over the samples; the copies stand for the crops that training cuts."""

    def read() -> None:
        for name in names:
            for pixels in images.pair(name):
                np.array(pixels)

    return read


def compare(slow: Callable[[], None], fast: Callable[[], None]) -> tuple[float, float]:
    """Median seconds of both, measured in turn so that a busy machine slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for read, taken in zip((slow, fast), times, strict=True):
            start = time.perf_counter()
            read()
            taken.append(time.perf_counter() - start)
    return median(times[0]), median(times[1])


def find_frames(folder: Path) -> tuple[Gta5, str]:
    """GTA5 frames, and what they are."""
    base = os.environ.get("UDABENCH_DATA")
    for root in (Path(base) / "gta5", Path(base) / "native/gta5") if base else ():
        if root.is_dir():
            return Gta5(root, "train"), "GTA5 frames on disk"
    return draw_frames(folder / "gta5"), "drawn frames of 1914x1052"


def draw_frames(root: Path, count: int = 4, size: Size = FRAME) -> Gta5:
    """Smooth shapes with a little noise: they compress about as well as a game's frames."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for i in range(1, count + 1):
        coarse = Image.fromarray(rng.integers(0, 256, (33, 60, 3), np.uint8))
        smooth = coarse.resize((size.width, size.height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
        noisy = np.asarray(smooth) + rng.normal(0, 3, (*size, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / f"images/{i:05d}.png")
        blocks = rng.integers(0, 34, (33, 60), np.uint8)
        label = Image.fromarray(blocks).resize((size.width, size.height), Image.Resampling.NEAREST)
        label.save(root / f"labels/{i:05d}.png")
    return Gta5(root, "train")


if __name__ == "__main__":
    main()
