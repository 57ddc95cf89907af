"""Stopping a sweep before its end: gently at the first signal, at once at the second."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from signal import SIGHUP
from typing import Literal

from sweeps.process import signals

STOP_S = 15.0  # from the first signal to the end of the process
FORCE_S = 9.0  # a trial that has not saved itself after this goes on from its checkpoint
EXIT_S = 3.0  # Ray and the interpreter end
DEADLINE_S = 13.0  # whatever Ray does, the process ends then
SAME_S = 0.5  # `timeout`, shells and terminals signal more than once: within this it is one signal
POLL_S = 0.05
CUT_AGAIN_S = 1.0  # in which what is left cleans up after itself
NEVER = math.inf

Cause = Literal["", "interrupted", "lost", "failed", "storage"]


class Stop:
    """Request to stop a sweep before its end; the first cause counts."""

    def __init__(self) -> None:
        self.cause: Cause = ""
        self.message = ""
        self.is_cut = False  # Ray was left in the middle of something
        self.at_deadline: Callable[[], None] = lambda: None  # what is saved even then
        self._since_s = math.inf  # when it was interrupted
        self._cut_after_s = NEVER

    @property
    def is_interrupted(self) -> bool:
        """Whether it is to be over soon."""
        return self._since_s < math.inf

    @property
    def patience_s(self) -> float:
        """How long the end of the sweep may still wait for others."""
        return max(0.0, self._since_s + STOP_S - EXIT_S - time.monotonic())

    def request(self, cause: Cause, message: str = "") -> None:
        """Ask for a stop; the trials that run save themselves first."""
        if not self.cause:
            self.cause, self.message = cause, message

    def interrupt(self, cause: Cause = "interrupted", message: str = "") -> None:
        """Ask for a stop that is over soon, whatever the main thread waits for."""
        self.request(cause, message)
        if not self.is_interrupted:
            self._since_s = time.monotonic()
            threading.Thread(target=self._enforce, name="deadline", daemon=True).start()

    def on_signal(self, number: int) -> None:
        """Take a signal: the first one interrupts, a later one ends the process at once."""
        if not self.is_interrupted:
            self.interrupt()
        elif number != SIGHUP and time.monotonic() - self._since_s > SAME_S:
            signals.leave("stopped at once; what is saved goes on")

    def may_cut(self, after_s: float) -> None:
        """Set how many seconds after an interruption the main thread is cut from now on.

        Raises:
            KeyboardInterrupt: so much time has passed already.
        """
        self._cut_after_s = after_s
        if self._is_due:
            self.on_cut()

    def on_cut(self) -> None:
        """Raise KeyboardInterrupt if the main thread may be cut now.

        A finalizer that runs at that moment swallows the exception. So it is raised again every
        `CUT_AGAIN_S`, until the main thread calls `may_cut`.
        """
        if self._is_due:
            self.is_cut = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def cut_is_interrupt(self) -> Iterator[None]:
        """Context manager: a cut that an import turned into another error is KeyboardInterrupt."""
        try:
            yield
        except Exception:
            if self.is_cut:
                raise KeyboardInterrupt from None
            raise

    @property
    def _is_due(self) -> bool:
        """Whether the main thread may be cut now; of a Ray that is lost nothing is to be had."""
        waits_s = 0.0 if self.cause == "lost" and self._cut_after_s < NEVER else self._cut_after_s
        return self.is_interrupted and time.monotonic() - self._since_s >= waits_s

    def _enforce(self) -> None:
        """Cut the main thread when it is time, and end the process at the deadline."""
        while time.monotonic() < self._since_s + DEADLINE_S:
            if self._is_due:
                signals.cut_main_thread()
                time.sleep(CUT_AGAIN_S)
            time.sleep(POLL_S)
        signals.leave("stopped by force; what is saved goes on", self.at_deadline)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context manager: a signal raises KeyboardInterrupt, for a command that cleans up."""
    stop = Stop()
    with signals.given_to(stop):
        stop.may_cut(0)
        try:
            yield
        finally:
            stop.may_cut(NEVER)
