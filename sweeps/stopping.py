"""Stopping a sweep before its end: gently at the first signal, at once at the second."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

STOP_S = 15.0  # from the first signal to the end of the process
FORCE_S = 9.0  # a trial that has not saved itself after this goes on from its checkpoint
EXIT_S = 3.0  # Ray and the interpreter end

Cause = Literal["", "interrupted", "failed", "storage"]


class Stop:
    """Whether a sweep is to stop before its end, and why: the first cause counts."""

    def __init__(self) -> None:
        self.cause: Cause = ""
        self.message = ""
        self.is_forced = False  # a second signal came: wait for nothing
        self.is_cut = False  # Ray was left in the middle of something
        self._deadline_s = math.inf

    def request(self, cause: Cause, message: str = "") -> None:
        """Ask for a stop; the trials that run save themselves first."""
        if not self.cause:
            self.cause, self.message = cause, message

    def interrupt(self) -> None:
        """Ask for a stop that is to be over soon."""
        self.request("interrupted")
        self._deadline_s = min(self._deadline_s, time.monotonic() + STOP_S)

    def on_signal(self, number: int, frame: Any) -> None:
        """Handle a signal: the first one requests a stop, the second one forces it."""
        if self._deadline_s < math.inf:
            self.is_forced = True
            signal.default_int_handler(number, frame)
        self.interrupt()
        signal.setitimer(signal.ITIMER_REAL, FORCE_S)

    @property
    def patience_s(self) -> float:
        """How long the end of the sweep may still wait for others."""
        return max(0.0, self._deadline_s - EXIT_S - time.monotonic())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: both raise KeyboardInterrupt."""
    with _handlers(signal.default_int_handler, signal.SIGTERM):
        yield


@contextlib.contextmanager
def gently(stop: Stop) -> Iterator[None]:
    """Give signals to ``stop``; what takes too long then is ended by KeyboardInterrupt."""
    with (
        _handlers(stop.on_signal, signal.SIGINT, signal.SIGTERM),
        _handlers(signal.default_int_handler, signal.SIGALRM),
    ):
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _handlers(handler: Callable[[int, Any], Any], *signals: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
