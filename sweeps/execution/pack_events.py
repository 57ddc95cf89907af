"""Turns what happens to packs into events of their trials. Knows no Ray."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.execution.slots import SlotLimit
from sweeps.process.stopping import Stop
from sweeps.records.events import EndCause, Kind, Listener, TrialEvent
from sweeps.resources.gpus import GpuShares
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from trainables.persistence.storage import Storage
from trainables.worker.reports import (
    FailureKind,
    PackConfig,
    PackSplit,
    TrialFailure,
    TrialReport,
    WorkerReport,
)
from trainables.worker.trial_log import TrialLog, log_of

ROUNDS = 5  # how often Tune gets a trial, which it drops if a worker dies while idle


@dataclass(frozen=True)
class DriverContext:
    """The objects that choose and record trials during one call of `run_trials`."""

    queue: Queue
    packs: Packs
    shares: GpuShares
    slots: SlotLimit
    stop: Stop
    storage: Storage
    listeners: Sequence[Listener]  # called for each event, before the queue


class PackEvents:
    """Records the events of each trial of a pack.

    A trial of a pack is unfinished as long as the queue has it among those that run.
    """

    def __init__(self, context: DriverContext) -> None:
        self._context = context
        self._queue = context.queue
        self._dropped: Counter[str] = Counter()  # how often Tune dropped a trial, by key

    def on_start(self, pack: PackConfig) -> None:
        """Record that a worker starts the pack."""
        self._record_all(self._unfinished(pack), "started")

    def on_restart(self, pack: PackConfig) -> None:
        """Record that the worker of the pack died, and another one continues it."""
        self._record_all(self._unfinished(pack), "restarted")

    def on_report(self, pack: PackConfig, report: WorkerReport) -> bool:
        """Record the progress of the trials, and return whether Tune has to stop the pack."""
        for each in report.trials:
            if isinstance(each, TrialFailure):
                self._on_failure(pack, each)
            else:
                self._on_progress(each)
        if report.done:
            return False
        if any(self._queue.stop_event(key) for key in self._unfinished(pack)):
            return True
        return self._context.slots.must_stop(pack["keys"][0])

    def on_end(self, pack: PackConfig, report: WorkerReport | None) -> None:
        """Record why unfinished trials of a pack end here, with its last report."""
        keys = self._unfinished(pack)
        is_preempted = self._context.slots.is_preempted(pack["keys"][0])
        self._context.slots.remove(pack["keys"][0])
        if report and report.storage_error:
            self._context.stop.request("storage", report.storage_error)
            return
        reason = self._split(keys, report.split) if report and report.split else ""
        ends = {key: self._queue.stop_event(key) for key in keys}
        for key in reversed(keys):  # each goes to the front of the queue
            if event := ends[key]:
                self._record(event)
            elif reason or is_preempted or any(ends.values()):
                self._record(TrialEvent(key, "preempted", reason=reason))

    def on_drop(self, pack: PackConfig, error: str) -> None:
        """Queue the trials of a pack again whose worker died idle; fail them after `ROUNDS`."""
        self._context.slots.remove(pack["keys"][0])
        for key in reversed(self._unfinished(pack)):
            self._dropped[key] += 1
            self._record(TrialEvent(key, "restarted"))
            if self._dropped[key] < ROUNDS:
                self._queue.requeue(key)
            else:
                self._give_up(key, error)

    def _on_progress(self, report: TrialReport) -> None:
        self._record(
            TrialEvent(
                report.key,
                "progressed",
                step=report.step,
                evaluations=report.rows(),
                resumed=report.resumed,
                notes=report.notes,
                hardware=report.hardware,
            )
        )
        if report.done and self._queue.stop_event(report.key) is None:
            self._record(TrialEvent(report.key, "finished"))

    def _on_failure(self, pack: PackConfig, failure: TrialFailure) -> None:
        is_memory = failure.kind is FailureKind.OUT_OF_MEMORY
        if not (is_memory and self._enlarge(failure.key, pack["gpus"])):
            cause = EndCause(failure.kind.value)
            self._record(TrialEvent(failure.key, "failed", reason=failure.reason, cause=cause))

    def _enlarge(self, key: str, gpus: float) -> bool:
        """Queue a trial again with a larger share of a GPU; return whether there is one."""
        share = self._context.shares.grow(self._queue.trial(key), gpus)
        if share is None:
            return False
        reason = f"did not fit into {gpus:.3g} of a GPU, goes on with {share:.3g}"
        self._record(TrialEvent(key, "enlarged", reason=reason))
        self._queue.requeue(key)
        return True

    def _split(self, keys: Sequence[str], split: PackSplit) -> str:
        """Form smaller packs of these trials from now on; return what happens, in words."""
        text = self._context.packs.split(map(self._queue.trial, keys), split.cause)
        return f"{text} ({split.reason})" if split.reason else text

    def _give_up(self, key: str, error: str) -> None:
        with contextlib.suppress(OSError):
            files = self._context.storage.open_trial(key)
            with contextlib.closing(TrialLog(log_of(files.folder))) as log:
                log.mark(f"failed: {error}")
            files.push()
        reason = error.splitlines()[-1].strip()
        self._record(TrialEvent(key, "failed", reason=reason, cause=EndCause.ERROR))

    def _unfinished(self, pack: PackConfig) -> list[str]:
        return [key for key in pack["keys"] if key in self._queue.running]

    def _record_all(self, keys: Iterable[str], kind: Kind) -> None:
        for key in keys:
            self._record(TrialEvent(key, kind))

    def _record(self, event: TrialEvent) -> None:
        """Pass an event to the listeners and the queue, then those that follow from it."""
        try:
            for listener in (*self._context.listeners, self._queue.on_event):
                listener(event)
            for following in self._queue.pending_events():
                self._record(following)
        except self._queue.storage_errors as error:  # a resumed trial reports it again
            message = f"the results of trials cannot be written: {error}"
            self._context.stop.request("storage", message)
