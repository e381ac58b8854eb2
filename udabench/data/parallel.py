"""Decoding in threads: the decoders release Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Told ``(done, total)`` after every item."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpus() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """``map`` in threads, in order. At the first error, or when closed, what has not begun is dropped."""
    pool = ThreadPoolExecutor(threads or min(cpus(), 8))
    try:
        for done, result in enumerate(pool.map(function, items), 1):
            if progress is not None:
                progress(done, len(items))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
