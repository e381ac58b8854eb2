"""SIGINT and SIGTERM: finish the step, save, say how to go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from udabench.errors import UserError
from udabench.world import highest, world_size


class Stopped(UserError):
    """The user (or the system) ended the training; everything is saved."""


class StopRequest:
    """Set by a first signal; a second one ends the process at once."""

    def __init__(self) -> None:
        self._number = 0

    @property
    def name(self) -> str:
        """Of the signal."""
        return signal.Signals(self._number).name

    def agree(self) -> bool:
        """Whether a signal has reached any rank: the same answer on all of them."""
        number = highest(self._number)
        self._number = max(self._number, number)
        return number > 0

    def __bool__(self) -> bool:
        return self._number > 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        signal.signal(number, signal.SIG_DFL)
        if world_size() > 1:
            # It may have come because another rank has failed, and said so.
            return
        # Not print: a handler may have interrupted one.
        with suppress(OSError):
            os.write(2, f"\n{self.name}: finishing the step and saving. Once more ends at once.\n".encode())


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle the signals in the block; the former handlers come back afterwards. Silent outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    former = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
