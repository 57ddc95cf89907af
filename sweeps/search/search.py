"""A search: the studies of a sweep share a budget, and suggest what to train next.

The outbox knows what happened, the studies what was suggested; `Search.resume` makes them agree
however an earlier run ended. Knows neither Ray nor MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeps.planning.plan import Plan
from sweeps.process.summary import counted
from sweeps.records.events import History, TrialEvent, cause_of_reason
from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from sweeps.search.open_suggestions import Announce, OpenSuggestions
from sweeps.search.queue import Queue, TrialSource
from sweeps.search.replay import learn_again
from sweeps.search.study import Study, open_studies
from sweeps.search.suggestion import Suggestion, Tagged
from sweeps.spec.search_spec import SearchSpec
from trainables.config import TrialConfig

KEEP_S = 5.0  # how much of the time that a search took may be forgotten


class Search(TrialSource):
    """Adds what the studies suggest to the trials of a grid, then trains the best once more."""

    storage_errors = (*TrialSource.storage_errors, OptunaError)

    def __init__(
        self,
        studies: Sequence[Study],
        spec: SearchSpec,
        confirm_seeds: Sequence[int],
        max_failures: int = 1,
        announce: Announce = lambda _: None,
    ) -> None:
        """Take the studies as they are.

        Args:
            studies: one or more.
            spec: the limits.
            confirm_seeds: with which the best are trained once more; none confirms nothing.
            max_failures: how often a trial may fail that confirms.
            announce: called with trials before they are trained, and when their tags change.
        """
        self._studies = {study.label: study for study in studies}
        self._spec, self._announce = spec, announce
        self._confirm_seeds, self._max_failures = confirm_seeds, max_failures
        self._open = OpenSuggestions(self._studies, announce)
        self._to_confirm = dict(self._studies)
        self._trained: Mapping[str, TrialRecord] = {}  # by earlier runs
        self._clock_s, self._is_timed = time.monotonic(), False
        self._searched_s = self._kept_s = max(study.stored.searched_s for study in studies)

    # What there is.

    def known(self) -> Iterator[Tagged]:
        """Yield the trials that the studies have suggested so far, and those that confirm the best.

        The best of a study is unknown while it continues.
        """
        continues = bool(self._suggesting())
        for study in self._studies.values():
            is_open = continues
            for suggestion, state in study.suggestions():
                is_open |= state == TrialState.RUNNING
                yield from suggestion.tagged()
            if not is_open:
                yield from self._confirmations(study)

    @property
    def used(self) -> int:
        """How many suggestions were made so far."""
        return sum(study.used for study in self._studies.values())

    @property
    def remaining_in_words(self) -> str:
        """A description of what the search will suggest."""
        budget = self._spec.budget
        suggestions = "suggestions" if budget is None else counted(budget, "suggestion")
        return f"{suggestions} in {counted(len(self._studies), 'study', 'studies')}"

    @property
    def stops_trials(self) -> bool:
        """True if its rule may stop a trial early."""
        return self._spec.early.rule != "none"

    @property
    def is_suggesting(self) -> bool:
        """True if it may still suggest new configurations."""
        return bool(self._suggesting())

    @property
    def is_over(self) -> bool:
        """True if it will add nothing to the queue any more."""
        return not (self._open or self._to_confirm or self._suggesting())

    def without_result(self) -> list[str]:
        """Return the labels of studies in which no trial was trained to its end."""
        return [label for label, study in self._studies.items() if not study.best(1)]

    def exhausted(self) -> list[str]:
        """Return which studies found nothing more to suggest below their limits, and why."""
        if self._spec.budget is not None and self.used >= self._spec.budget:
            return []
        reasons = {label: study.why_exhausted for label, study in self._studies.items()}
        return [f"study {label}: {reason}" for label, reason in reasons.items() if reason]

    # What happens.

    def resume(self, records: Mapping[str, TrialRecord], history: History, queue: Queue) -> None:
        """Continue where an earlier run ended.

        Args:
            records: what the outbox has, by key.
            history: returns the evaluations that the outbox has of a trial.
            queue: for the trials that are not done.
        """
        self._trained = records
        for study in self._studies.values():
            for suggestion, state in study.suggestions():
                if state == TrialState.RUNNING:
                    self._open.reopen(suggestion, records, history, queue)
                elif state == TrialState.COMPLETE:  # an outbox that was lost has it to learn
                    queue.put(trial for trial in suggestion.trials if self._is_left(trial))
                else:
                    self._stop_killed(study, suggestion, queue)

    def _stop_killed(self, study: Study, suggestion: Suggestion, queue: Queue) -> None:
        """Stop trials that ran when the driver died, if their study had ended them before."""
        reason = study.end_reason(suggestion)
        for key in suggestion.keys:
            if key in self._trained and self._trained[key].status == "KILLED":
                cause = cause_of_reason(reason)  # the study has kept nothing else
                event = TrialEvent(key, "stopped", reason=reason, cause=cause)
                queue.stop(event, has_started=True)

    def on_event(self, event: TrialEvent, queue: Queue) -> None:
        """Take an event of a trial; its configuration may pause, continue or stop others."""
        if self._open.on_event(event, queue):
            self._keep_time()

    # What comes next.

    def suggest(self) -> list[TrialConfig]:
        """Return the trials of the next suggestion; after the last one, those that confirm."""
        self._keep_time()
        while suggesting := self._suggesting():
            study = min(suggesting, key=lambda study: study.used)
            suggestion = study.ask()
            if suggestion is None:
                continue  # the study has just found that it is exhausted
            self._open.add(suggestion)
            self._keep_time()
            self._announce(suggestion.tagged())
            return list(suggestion.trials)
        busy = self._open.studies
        for label in [label for label in self._to_confirm if label not in busy]:
            tagged = list(self._confirmations(self._to_confirm.pop(label)))
            self._announce(tagged)
            if trials := [trial for trial, _ in tagged if self._is_left(trial)]:
                return trials
        return []

    def _suggesting(self) -> list[Study]:
        """Return the studies that may suggest something more."""
        spec = self._spec
        if spec.budget is not None and self.used >= spec.budget:
            return []
        if spec.hours is not None and self._searched_s >= spec.hours * 3600:
            return []
        return [
            study
            for study in self._studies.values()
            if not study.is_exhausted
            and (spec.patience is None or study.since_improved < spec.patience)
        ]

    def _is_left(self, trial: TrialConfig) -> bool:
        record = self._trained.get(trial.key)
        return record is None or record.is_left(self._max_failures)

    def _confirmations(self, study: Study) -> Iterator[Tagged]:
        if self._spec.confirm is None:
            return
        for rank, best in enumerate(study.best(self._spec.confirm.top), 1):
            tags = {**best.tags, "stage": "confirm", "rank": str(rank)}
            for seed in self._confirm_seeds:
                trial = best.trials[0]
                yield replace(trial, seed=seed, is_tested=trial.corpus_test > 0), tags

    def _keep_time(self) -> None:
        """Count the time while suggestions are trained; that of a grid alone does not count."""
        now_s = time.monotonic()
        if self._is_timed:
            self._searched_s += now_s - self._clock_s
        self._clock_s, self._is_timed = now_s, bool(self._open)
        if self._spec.hours is not None and self._searched_s - self._kept_s > KEEP_S:
            self._kept_s = self._searched_s
            next(iter(self._studies.values())).stored.searched_s = self._searched_s


def known_studies(
    plan: Plan, outbox: Outbox, storage: BaseStorage
) -> tuple[list[Study], set[str], int]:
    """Open the studies of a sweep, with all that its outbox knows of them.

    They learn now what an earlier driver did not tell them: so the best of a study that has ended
    is known, and the trials that confirm it stay part of the sweep.

    Returns:
        The studies, the keys of all trials that they know or the grid has, and how many
        configurations the storage lacked.

    Raises:
        DamagedError: the storage has something that a study cannot have written.
    """
    studies, taken = open_studies(plan, storage)
    lacked = learn_again(studies, taken, outbox)
    records = {record.key: record for record in outbox.trials()}
    Search(studies, plan.sweep.search, []).resume(records, outbox.history, Queue())
    return studies, taken, lacked
