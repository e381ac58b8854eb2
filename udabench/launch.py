"""Processes that torchrun has started for one run: they join, one of them speaks, and they part."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from udabench.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

PATIENCE = timedelta(hours=1)
"""A process that has not been heard of for so long is lost: longer than any pass or evaluation of one process."""
LAST_WORDS = timedelta(seconds=20)
"""How long the others stay while the first that failed says why: torchrun ends all when one has gone."""


def several() -> bool:
    """Whether torchrun started this process as one of several. Reads the environment only."""
    known = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return known and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def together() -> Iterator[None]:
    """The processes of torchrun are one world in the block (see :mod:`udabench.world`); alone, nothing happens.

    Rank 0 has the terminal. Of errors, the one that comes first is raised, on its rank; what the others met because of
    it, or as well, ends them silently.

    Raises:
        UserError: the processes do not find each other.
    """
    if not several():
        yield
        return
    store = _join()
    try:
        with _silence(unless=int(os.environ["RANK"]) == 0):
            yield
            _part()
    except BaseException as error:
        if _speaks(store):
            raise
        raise SystemExit(1) from error


def _join() -> Store:
    import torch
    from torch import distributed as dist

    try:
        found = dist.rendezvous("env://", timeout=timedelta(minutes=5))  # type: ignore[attr-defined]
        store, rank, world = next(found)
        # By the kind of tensor: gradients go between GPUs, agreements between processors.
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The processes of torchrun do not find each other ({error}). On one machine start them with "
            "torchrun --standalone; on several, give --rdzv-endpoint."
        ) from error
    joined: Store = store
    return joined


def _part() -> None:
    """All have come to their end."""
    from torch import distributed as dist

    from udabench.world import meet

    meet()
    dist.destroy_process_group()


def _speaks(store: Store) -> bool:
    """Whether this process is the first that failed; the others wait here until it has said why."""
    try:
        if store.add("udabench/failed", 1) == 1:
            # After the last line of a traceback too.
            atexit.register(lambda: store.set("udabench/told", "yes"))
            return True
    except RuntimeError:
        # The store has gone with the process that kept it: better twice than not at all.
        return True
    with suppress(RuntimeError):
        store.wait(["udabench/told"], LAST_WORDS)
    return False


@contextmanager
def _silence(unless: bool) -> Iterator[None]:
    if unless:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
