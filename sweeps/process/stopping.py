"""Stopping a sweep early: gently at the first signal, at once at the second."""

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
FORCE_S = 9.0  # for trials to save themselves; later ones continue from their last checkpoint
EXIT_S = 3.0  # for Ray and the interpreter to end
DEADLINE_S = 13.0  # whatever Ray does, the process ends then
SAME_S = 0.5  # `timeout`, shells and terminals send a signal twice: within this it counts once
POLL_S = 0.05
CUT_AGAIN_S = 1.0  # from one interruption of the main thread to the next; it cleans up meanwhile
NEVER = math.inf

Cause = Literal["", "interrupted", "lost", "failed", "storage"]


class Stop:
    """A request to stop a sweep early; the first cause counts.

    After an interruption the main thread is cut, which means that KeyboardInterrupt is raised in
    it wherever it is, as soon as `may_cut` allows.
    """

    def __init__(self) -> None:
        self.cause: Cause = ""
        self.message = ""
        self.is_cut = False  # Ray was interrupted, so it cannot be shut down any more
        self.at_deadline: Callable[[], None] = lambda: None  # saves what can be saved even then
        self._since_s = math.inf  # time of the interruption
        self._cut_after_s = NEVER

    @property
    def is_interrupted(self) -> bool:
        """True once the process has to end soon."""
        return self._since_s < math.inf

    @property
    def patience_s(self) -> float:
        """Seconds for which the end of the sweep may still wait, for the tracking store say."""
        return max(0.0, self._since_s + STOP_S - EXIT_S - time.monotonic())

    def request(self, cause: Cause, message: str = "") -> None:
        """Request a stop; running trials save themselves first."""
        if not self.cause:
            self.cause, self.message = cause, message

    def interrupt(self, cause: Cause = "interrupted", message: str = "") -> None:
        """Request a stop within `STOP_S`, whatever the main thread waits for."""
        self.request(cause, message)
        if not self.is_interrupted:
            self._since_s = time.monotonic()
            threading.Thread(target=self._enforce, name="deadline", daemon=True).start()

    def on_signal(self, number: int) -> None:
        """Handle a signal: the first one interrupts, a later one ends the process at once."""
        if not self.is_interrupted:
            self.interrupt()
        elif number != SIGHUP and time.monotonic() - self._since_s > SAME_S:
            signals.end_process("stopped at once; what is saved goes on")

    def may_cut(self, after_s: float) -> None:
        """Set how many seconds after an interruption the main thread may be cut, from now on.

        Raises:
            KeyboardInterrupt: more seconds have passed already.
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
        """Context manager: raise KeyboardInterrupt for any error once the main thread is cut.

        A library that is imported at that moment may turn KeyboardInterrupt into another error.
        """
        try:
            yield
        except Exception:
            if self.is_cut:
                raise KeyboardInterrupt from None
            raise

    @property
    def _is_due(self) -> bool:
        """True if the main thread may be cut now; at once if Ray is lost, as nothing is saved."""
        waits_s = 0.0 if self.cause == "lost" and self._cut_after_s < NEVER else self._cut_after_s
        return self.is_interrupted and time.monotonic() - self._since_s >= waits_s

    def _enforce(self) -> None:
        """Cut the main thread as soon as it is due, and end the process at the deadline."""
        while time.monotonic() < self._since_s + DEADLINE_S:
            if self._is_due:
                signals.cut_main_thread()
                time.sleep(CUT_AGAIN_S)
            time.sleep(POLL_S)
        signals.end_process("stopped by force; what is saved goes on", self.at_deadline)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context manager: let a signal raise KeyboardInterrupt, so that a command can clean up."""
    stop = Stop()
    with signals.received_by(stop):
        stop.may_cut(0)
        try:
            yield
        finally:
            stop.may_cut(NEVER)
