"""SIGINT and SIGTERM: finish the step, save, say how to go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from udabench.errors import UserError


class Stopped(UserError):
    """The user (or the system) ended the training; everything is saved."""


class StopRequest:
    """Set by a first signal; a second one ends the process at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)
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
