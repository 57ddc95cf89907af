"""The thread that sends the outbox to the tracking store, so that training never waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from analysis.text.messages import first_line
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.tracking.experiment import RefusedError
from sweeps.tracking.sweep_runs import SweepRuns
from trainables.persistence.storage import StorageError

logger = logging.getLogger(__name__)

GATHER_S = 0.3  # events within this time are sent together
RETRY_S = 5.0
MAX_PROBLEMS = 2  # in a row: then the store counts as unavailable
MAX_REASON = 300  # characters
POLL_S = 0.05
NO_PROGRESS_S = 10.0  # how long the end of a sweep waits for a store that takes nothing,
SLOW_S = 120.0  # and for one that has not refused either: a run is many requests


class Delivery:
    """Sends what the store lacks, and tries again what fails."""

    def __init__(self, outbox: Outbox, connect: Callable[[], SweepRuns]) -> None:
        """Start the thread.

        Args:
            outbox: of the sweep.
            connect: opens the store; called on the thread until it succeeds.
        """
        self.problem = ""  # why the store takes no events at present; empty if it does
        self._refusal: RefusedError | None = None
        self._outbox = outbox
        self._connect = connect
        self._wake = threading.Event()
        self._hurry = threading.Event()  # the end of the sweep waits
        self._tried = threading.Event()  # the store was asked at least once
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def wait_until_tried(self, wait_s: float) -> None:
        """Wait until the store has answered, or has failed to.

        Raises:
            RefusedError: the store will never take this sweep.
        """
        if not self._tried.wait(wait_s):
            self.problem = f"no answer after {wait_s:.0f} s"
        if self._refusal:
            raise self._refusal

    def on_event(self, event: TrialEvent) -> None:
        """Wake the thread: the outbox has a new event."""
        self._wake.set()

    def flush(self, wait_s: float = float("inf")) -> int:
        """Wait until everything is sent, but no longer than `wait_s`.

        It also ends when the store has taken no run for `NO_PROGRESS_S`, or for `SLOW_S` if
        nothing has failed, as on a slow network.

        Returns:
            The number of runs that are not up to date.
        """
        self._hurry.set()
        self._wake.set()
        end_s = time.monotonic() + wait_s
        left, moved_s = self._left(), time.monotonic()
        while left and self._thread.is_alive():
            time.sleep(POLL_S * (1 + left / 500))  # asking takes longer the more there is
            now_s = time.monotonic()
            if now_s > min(end_s, moved_s + (NO_PROGRESS_S if self.problem else SLOW_S)):
                self.problem = self.problem or "it has not taken them in time"
                break
            before, left = left, self._left()
            if left < before:
                moved_s = now_s
        return left

    def close(self) -> None:
        """End the thread; wait only shortly for a request that is in progress."""
        self._closed = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(GATHER_S + 1)

    def _left(self) -> int:
        outbox = self._outbox
        return len(outbox.unsent()) + (not outbox.sweep.is_sent) + (not outbox.looks.is_sent)

    def _run(self) -> None:
        runs: SweepRuns | None = None
        while not self._closed:
            try:
                runs = runs or self._connect()
                self._send(runs)
                if self.problem:
                    logger.warning("MLflow answers again")
                self.problem = ""
            except RefusedError as error:
                self._refusal = error
                self.problem, _, _ = str(error).partition("\n")
                self._tried.set()
                return
            except Exception as error:  # whatever it is, training continues and the error is logged
                reason = _reason(error)
                if not self.problem and self._tried.is_set():
                    logger.warning("MLflow takes no events, they are kept meanwhile: %s", reason)
                self.problem = reason
                self._tried.set()
            if self.problem:
                self._hurry.wait(RETRY_S)
                self._hurry.clear()
            else:
                self._wake.wait()
            time.sleep(0 if self._closed else GATHER_S)
            self._wake.clear()

    def _send(self, runs: SweepRuns) -> None:
        """Send what is not sent yet; a run that is refused does not delay the others."""
        problems: list[Exception] = []
        if self._outbox.sweep.status == "RUNNING":  # its plan comes before its trials
            _try(lambda: self._send_sweep(runs), problems)
        if not self._outbox.looks.is_sent:
            _try(runs.send_evidence, problems)
        self._tried.set()
        for key in self._outbox.unsent():
            record = self._outbox.trial(key)
            if self._closed or record is None:
                return
            _try(partial(runs.send_trial, record), problems)
            if len(problems) >= MAX_PROBLEMS:
                break
        if problems:
            raise problems[0]
        self._send_sweep(runs)

    def _send_sweep(self, runs: SweepRuns) -> None:
        sweep = self._outbox.sweep
        if not sweep.is_sent:
            runs.send_sweep(sweep)


def _try(send: Callable[[], None], problems: list[Exception]) -> None:
    """Call a function, and add its exception to a list."""
    try:
        send()
    except Exception as error:  # the caller raises it from the list
        problems.append(error)


def _reason(error: BaseException) -> str:
    """Return a short reason; of a failed request, the error of the operating system."""
    if isinstance(error, StorageError):  # not of the tracking store
        return str(error)[:MAX_REASON]
    root = error
    while root.__context__ is not None:
        root = root.__context__
    if isinstance(root, OSError) and root.strerror:
        return f"{root.strerror}: {root.filename}" if root.filename else root.strerror
    return first_line(error)[:MAX_REASON]
