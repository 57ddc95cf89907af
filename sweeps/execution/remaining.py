"""Queues the remaining trials of a sweep, and shows their number in the first lines of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.text.terminal import in_a_line
from sweeps.execution.run import RunContext, Say
from sweeps.planning.plan import Plan
from sweeps.process.summary import counted
from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from sweeps.search.queue import Queue
from trainables.config import TrialConfig
from trainables.errors import UserError
from trainables.persistence.storage import Storage, StorageError

if TYPE_CHECKING:
    from sweeps.deciding.decider import Decider
    from sweeps.search.search import Search


def remaining_trials(
    run: RunContext,
    search: Search | None,
    decider: Decider | None,
    before: Sequence[TrialRecord],
) -> Queue:
    """Return the queue of what is left to train, and show how much that is.

    Args:
        run: of the sweep.
        search: of the sweep, if it has one.
        decider: of its claims, if it decides some; it has the search.
        before: the trials that the sweep had when this run began.

    Raises:
        UserError: the storage of the trials cannot be read.
    """
    plan, outbox = run.plan, run.outbox
    records = {record.key: record for record in outbox.trials()}
    queue = Queue(decider or search)
    queue.put(_unfinished(plan, records))
    used, suggested = 0, set[str]()
    if search or decider:
        used, suggested = _resume(search, decider, queue, outbox, records)
        records |= {record.key: record for record in outbox.trials()}
    started = _started(run.outcome.storage, queue)
    remaining = Remaining(plan, before, records, queue.waiting, started, suggested)
    parts = remaining.counts()
    if search and not queue.is_over:
        parts += remaining.in_search(used)
    run.say(f"{plan.sweep.name}: {', '.join(parts)}")
    _show_plan(plan, used, run.say)
    if queue.source.progress_in_words:
        run.say(f"claims  {queue.source.progress_in_words}")
    return queue


def _unfinished(plan: Plan, records: Mapping[str, TrialRecord]) -> list[TrialConfig]:
    """Return the trials of the grid that are neither done nor given up."""
    limit = plan.sweep.resources.max_failures
    return [trial for trial in plan.trials if records[trial.key].is_left(limit)]


def _resume(
    search: Search | None,
    decider: Decider | None,
    queue: Queue,
    outbox: Outbox,
    records: dict[str, TrialRecord],
) -> tuple[int, set[str]]:
    """Continue a search, and the decision of claims, from where an earlier run ended.

    Returns:
        How many suggestions the search made before, and the keys of the trials that are added now.
    """
    # Trials that confirm come back when their study, which was lost, ends again.
    known = {record.key: record for record in outbox.removed_trials()} | records
    used = 0
    if search:
        search.resume(known, outbox.history, queue)
        for event in queue.pending_events():
            outbox.record(event)
        used = search.used
    if decider:
        decider.resume(known, outbox.history, queue)
    waiting = {trial.key for trial in queue.waiting}
    queue.fill()
    return used, {trial.key for trial in queue.waiting} - waiting


def _started(storage: Storage, queue: Queue) -> Set[str]:
    """Return the keys of waiting trials that have a checkpoint."""
    try:
        return storage.started([trial.key for trial in queue.waiting])
    except StorageError as error:
        raise UserError(str(error)) from None


def _show_plan(plan: Plan, used: int, say: Say) -> None:
    """Show the warnings of a plan, and how far its search is."""
    for warning in plan.warnings:
        say(f"warning {in_a_line(warning)}")
    if plan.studies:
        of_all = "" if plan.suggestions is None else f" of {plan.suggestions}"
        say(f"search  {used}{of_all} suggestions made so far ({plan.sweep.search.sampler})")


@dataclass(frozen=True)
class Remaining:
    """Counts what is done of a sweep and what is left, for its first line."""

    plan: Plan
    before: Sequence[TrialRecord]  # that the sweep had when this run began
    records: Mapping[str, TrialRecord]  # that it has now, by key
    waiting: Sequence[TrialConfig]
    started: Set[str]  # keys of waiting trials that have a checkpoint
    suggested: Set[str]  # keys of trials that a search has added just now

    def counts(self) -> list[str]:
        """Return the numbers of trials in words, such as ``3 done`` and ``2 to continue``."""
        names = ("done", "to continue", "to run", "failed to retry", "given up")
        counts = dict.fromkeys(names, 0)
        counts["done"] = sum(record.is_done for record in self.records.values())
        for trial in self.waiting:
            if self.records[trial.key].status == "FAILED":
                counts["failed to retry"] += 1
            elif trial.key in self.started:
                counts["to continue"] += 1
            elif trial.key not in self.suggested:
                counts["to run"] += 1
        failed = sum(record.status == "FAILED" for record in self.records.values())
        counts["given up"] = failed - counts["failed to retry"]
        counts["no longer part of the sweep"] = self._gone
        return [f"{count} {name}" for name, count in counts.items() if count or name == "done"]

    @property
    def _gone(self) -> int:
        """Number of trials that began and are no longer part of the sweep.

        Without those that confirm a winner: they come back, or others do, when the search ends.
        """
        gone = [record for record in self.before if record.key not in self.records]
        return sum(
            record.status != "WAITING" and not (self.plan.confirming and record.is_confirming)
            for record in gone
        )

    def in_search(self, used: int) -> list[str]:
        """Return what a search has yet to do, in words.

        Args:
            used: number of suggestions so far.
        """
        plan, name = self.plan, "more suggestion" if used else "suggestion"
        studies = counted(len(plan.studies), "study", "studies")
        parts = []
        if plan.suggestions is None:
            parts.append(f"{name}s in {studies}")
        elif left := plan.suggestions - used:
            parts.append(f"{counted(left, name)} in {studies}")
        confirming = plan.confirming - sum(
            record.is_confirming and (record.is_decided or key in self.started)
            for key, record in self.records.items()
        )
        if confirming > 0:
            parts.append(f"then {counted(confirming, 'trial')} to confirm the winners")
        return parts
