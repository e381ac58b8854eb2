"""The stream of batches: made in this process or in workers, always the same."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from udabench.data.batches import BatchFunction
from udabench.data.parallel import cpus
from udabench.errors import DataError, UserError
from udabench.method import Batch

MOST = 8
"""More workers than this never helped a batch of a few images."""


def auto_workers(requested: int, function: BatchFunction, processes: int = 1) -> int:
    """How many loader processes: as requested, else (-1) one for every two processors, and no more than a batch has
    images. ``processes`` that train side by side on this machine share the processors."""
    if requested >= 0:
        return requested
    return max(1, min(cpus() // (2 * processes), function.images, MOST))


def stream(
    function: Callable[[int], Batch],
    start: int,
    stop: int,
    workers: int = 0,
    pin: bool = False,
    start_method: str | None = None,
) -> Iterator[Batch]:
    """Batches ``start`` to ``stop - 1``, in order, the same for any number of workers.

    Close the iterator (or use it up) to end the workers. The global random state is not touched.

    Args:
        function: the batch function; picklable when there are workers. Workers get nothing else.
        workers: processes; 0: batches are made when they are asked for, here. Never more than there are batches.
        pin: page-locked memory, for copies to a GPU that do not wait.
        start_method: ``fork``, ``spawn``, ``forkserver``; None: Python's usual one.

    Raises:
        UserError: as the function raised it, in whatever process.
        DataError: a worker died (most often for want of memory).
    """
    if workers <= 0:
        for iteration in range(start, stop):
            yield function(iteration)
        return
    with warnings.catch_warnings():
        # torch warns when there are more workers than processors; whoever asks for them may have them.
        warnings.simplefilter("ignore")
        loader = DataLoader(
            _Items(function),
            sampler=range(start, stop),
            batch_size=None,
            num_workers=min(workers, max(1, stop - start)),
            pin_memory=pin,
            generator=torch.Generator(),
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context=start_method,
        )
    batches = iter(loader)
    try:
        yield from _unwrap(batches)
    finally:
        # Reference counting would end them too, but a traceback may hold the iterator for long.
        batches._shutdown_workers()  # type: ignore[attr-defined]


def _unwrap(batches: Iterator[Batch | _Failure]) -> Iterator[Batch]:
    while True:
        try:
            item = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"A loader process ended unexpectedly ({' '.join(str(error).split())}). Most often there was too "
                "little memory: set data.workers lower."
            ) from error
        if isinstance(item, _Failure):
            raise item.error
        yield item


@dataclass(frozen=True)
class _Failure:
    """A user's error on its way out of a worker: torch would turn it into text with a traceback in it."""

    error: UserError


class _Items(Dataset[Batch | _Failure]):
    def __init__(self, function: Callable[[int], Batch]) -> None:
        self.function = function

    def __getitem__(self, iteration: int) -> Batch | _Failure:
        try:
            return self.function(iteration)
        except UserError as error:
            return _Failure(error)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C and torchrun's SIGTERM reach the whole group; the main process decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
