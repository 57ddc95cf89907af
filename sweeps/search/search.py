"""A search: the studies of a sweep share a budget, and say what to train next.

What happened lies in the outbox, what was chosen in the studies; `Search.resume` makes them agree
after whatever ended an earlier run. Knows neither Ray nor MLflow.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sweeps.planning.plan import Plan
from sweeps.process.summary import counted
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox, TrialRecord
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from sweeps.search.study import Study, learn_again, open_studies
from sweeps.search.suggestion import Suggestion
from sweeps.search.warm_start import ANOTHER_SEED
from sweeps.spec.search_spec import SearchSpec
from trainables.config import TrialConfig
from trainables.training.loop import TrainingDivergedError

KEEP_S = 5.0  # how much of the time that a search took may be forgotten
Tagged = tuple[TrialConfig, dict[str, str]]  # a trial with the tags of its run
History = Callable[[str], Sequence[Mapping[str, Any]]]  # the evaluations of a trial's key


class Search(Queue):
    """The trials of a grid first, then what the studies suggest, then the winners once more.

    A configuration is judged by all its seeds: one that comes to a rung before the others is parked
    there until they have come as well.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        spec: SearchSpec,
        confirm_seeds: Sequence[int],
        max_failures: int = 1,
        announce: Callable[[Sequence[Tagged]], None] = lambda _: None,
    ) -> None:
        """Take the studies as they are.

        Args:
            studies: one for each cell.
            spec: the limits.
            confirm_seeds: with which the winners are trained once more; none confirms nothing.
            max_failures: how often a trial may fail that confirms.
            announce: told of trials before they are trained, and when their tags change.
        """
        super().__init__()
        self._studies = {study.label: study for study in studies}
        self._spec, self._announce = spec, announce
        self._confirm_seeds, self._max_failures = confirm_seeds, max_failures
        self._open: dict[str, Suggestion] = {}  # by the key of each of its trials
        self._begun: set[str] = set()  # keys
        self._parked: set[str] = set()  # keys
        self._leaving: dict[str, TrialEvent] = {}  # running trials that are to be left, by key
        self._decided: list[TrialEvent] = []  # about trials that do not run
        self._to_confirm = dict(self._studies)
        self._trained: Mapping[str, TrialRecord] = {}  # by earlier runs
        self._clock_s, self._is_timed = time.monotonic(), False
        self._searched_s = self._kept_s = max(study.searched_s for study in studies)

    # What there is.

    def known(self) -> Iterator[Tagged]:
        """The trials that the studies have suggested so far, and those that confirm the best.

        Of a study that goes on nobody knows the best.
        """
        goes_on = bool(self._suggesting())
        for study in self._studies.values():
            is_open = goes_on
            for suggestion, state in study.suggestions():
                is_open |= state == TrialState.RUNNING
                yield from _tagged(suggestion)
            if not is_open:
                yield from self._confirmations(study)

    def demand(self, packs: Packs) -> float:
        """How many packs could run now, if there were room for all."""
        return math.inf if self._suggesting() else super().demand(packs)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do, now or later."""
        later = self._open or self._to_confirm or self._suggesting()
        return super().is_over and not later

    @property
    def storage_errors(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        return (*Queue.storage_errors, OptunaError)

    @property
    def used(self) -> int:
        """How many suggestions were made so far."""
        return sum(study.used for study in self._studies.values())

    @property
    def what_comes(self) -> str:
        """How much there is to do, in words."""
        budget = self._spec.budget
        suggestions = "suggestions" if budget is None else counted(budget, "suggestion")
        return f"{suggestions} in {counted(len(self._studies), 'study', 'studies')}"

    def without_result(self) -> list[str]:
        """The labels of studies in which nothing was trained to its end."""
        return [label for label, study in self._studies.items() if not study.best(1)]

    def exhausted(self) -> list[str]:
        """Which studies found nothing more to suggest before the limits were reached, and why."""
        if self._spec.budget is not None and self.used >= self._spec.budget:
            return []
        why = {label: study.why_exhausted for label, study in self._studies.items()}
        return [f"study {label}: {reason}" for label, reason in why.items() if reason]

    def resume(self, records: Mapping[str, TrialRecord], history: History) -> None:
        """Go on from where an earlier run was ended.

        Args:
            records: what the outbox has, by key.
            history: gives the evaluations that it has of a trial.
        """
        self._trained = records
        self._begun = {key for key, record in records.items() if record.status != "WAITING"}
        for study in self._studies.values():
            for suggestion, state in study.suggestions():
                if state == TrialState.RUNNING:
                    self._reopen(study, suggestion, records, history)
                elif state == TrialState.COMPLETE:  # an outbox that was lost has it to learn
                    self.put(trial for trial in suggestion.trials if self._is_left(trial))
                else:  # of a trial that ran when the driver died, no one said that it is stopped
                    why = study.why_ended(suggestion)
                    self._decided += [
                        TrialEvent(key, "stopped", reason=why)
                        for key in suggestion.keys
                        if key in records and records[key].status == "KILLED"
                    ]

    def _reopen(
        self,
        study: Study,
        suggestion: Suggestion,
        records: Mapping[str, TrialRecord],
        history: History,
    ) -> None:
        self._open |= dict.fromkeys(suggestion.keys, suggestion)
        self._trials |= {trial.key: trial for trial in suggestion.trials}
        for key in suggestion.keys:
            for evaluation in history(key):
                suggestion.on_evaluation(key, evaluation)
        for key in suggestion.keys:
            record = records.get(key)
            if key not in self._open or record is None:
                continue  # its configuration came to an end
            if record.status == "FAILED":
                self._fail(suggestion, key, record.reason)
            elif record.status == "FINISHED":
                self._finish(suggestion, key)
        if suggestion.keys[0] in self._open:
            self._parked |= set(suggestion.keys) - suggestion.ended
            self._judge(study, suggestion)
            self._release(suggestion)

    # What happens.

    def on_event(self, event: TrialEvent) -> None:
        """Take an event; what follows from it for other trials is in `pending_events`."""
        super().on_event(event)
        if event.kind == "started":
            self._begun.add(event.key)
        if event.key not in self.running:
            self._leaving.pop(event.key, None)
        suggestion = self._open.get(event.key)
        if suggestion is None:
            return
        match event.kind:
            case "progressed":
                for evaluation in event.evaluations:
                    suggestion.on_evaluation(event.key, evaluation)
                self._judge(self._studies[suggestion.study], suggestion)
                if event.key in self._open and suggestion.waits(event.key):
                    self._leaving[event.key] = TrialEvent(event.key, "paused")
            case "paused":
                self._parked.add(event.key)
                self._release(suggestion)
            case "finished":
                self._finish(suggestion, event.key)
            case "failed":
                self._fail(suggestion, event.key, event.reason)
        self._keep_time()

    def stop_event(self, key: str) -> TrialEvent | None:
        """Whether a running trial is to be left now, as the event that this will be."""
        return self._leaving.get(key)

    def pending_events(self) -> list[TrialEvent]:
        """What became of trials that do not run, since this was asked last."""
        decided, self._decided = self._decided, []
        return decided

    def _judge(self, study: Study, suggestion: Suggestion) -> None:
        """Ask the study about each rung that all seeds have reached."""
        while suggestion.at_rung() is not None:
            why = study.judge(suggestion)
            self._announce(_tagged(suggestion))
            if why:
                study.stopped(suggestion, why)
                self._end(suggestion, why)
                return
            self._release(suggestion)

    def _finish(self, suggestion: Suggestion, key: str) -> None:
        suggestion.ended.add(key)
        if suggestion.ended == set(suggestion.keys):
            self._studies[suggestion.study].finished(suggestion)
            self._end(suggestion, "")

    def _fail(self, suggestion: Suggestion, key: str, why: str) -> None:
        suggestion.ended.add(key)
        diverged = why.startswith(TrainingDivergedError.__name__)
        self._studies[suggestion.study].failed(suggestion, why, diverged)
        self._end(suggestion, f"{ANOTHER_SEED}: {why}")

    def _end(self, suggestion: Suggestion, why: str) -> None:
        """Its configuration is decided: the trials that are not done are left."""
        for key in suggestion.keys:
            del self._open[key]
        keys = [key for key in suggestion.keys if key not in suggestion.ended]
        for key in keys:
            if key in self.running:
                self._leaving[key] = TrialEvent(key, "stopped", reason=why)
            elif key in self._begun:
                self._decided.append(TrialEvent(key, "stopped", reason=why))
        self._waiting = deque(trial for trial in self._waiting if trial.key not in keys)
        self._parked -= set(suggestion.keys)

    def _release(self, suggestion: Suggestion) -> None:
        """Let parked trials go on that do not wait for other seeds any more."""
        free = [t for t in suggestion.trials if t.key in self._parked]
        free = [t for t in free if not suggestion.waits(t.key)]
        self._parked -= {trial.key for trial in free}
        self._waiting.extendleft(reversed(free))
        for key in suggestion.keys:
            event = self._leaving.get(key)
            if event is not None and event.kind == "paused" and not suggestion.waits(key):
                del self._leaving[key]

    # What comes next.

    def more(self) -> list[TrialConfig]:
        """The trials of the next suggestion; when there is none, those that confirm the best."""
        self._keep_time()
        while suggesting := self._suggesting():
            study = min(suggesting, key=lambda study: study.used)
            suggestion = study.ask()
            if suggestion is None:
                continue  # it has nothing new any more
            self._open |= dict.fromkeys(suggestion.keys, suggestion)
            self._keep_time()
            self._announce(_tagged(suggestion))
            return list(suggestion.trials)
        busy = {suggestion.study for suggestion in self._open.values()}
        for label in [label for label in self._to_confirm if label not in busy]:
            tagged = list(self._confirmations(self._to_confirm.pop(label)))
            self._announce(tagged)
            if trials := [trial for trial, _ in tagged if self._is_left(trial)]:
                return trials
        return []

    def _suggesting(self) -> list[Study]:
        """The studies that may suggest something more."""
        spec, studies = self._spec, self._studies.values()
        if spec.budget is not None and self.used >= spec.budget:
            return []
        if spec.hours is not None and self._searched_s >= spec.hours * 3600:
            return []
        return [
            study
            for study in studies
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
            tags = {**_tags(best), "stage": "confirm", "rank": str(rank)}
            for seed in self._confirm_seeds:
                yield replace(best.trials[0], seed=seed), tags

    def _keep_time(self) -> None:
        """Count the time in which suggestions were under way; that of the grid does not count."""
        now_s = time.monotonic()
        if self._is_timed:
            self._searched_s += now_s - self._clock_s
        self._clock_s, self._is_timed = now_s, bool(self._open)
        if self._spec.hours is not None and self._searched_s - self._kept_s > KEEP_S:
            self._kept_s = self._searched_s
            next(iter(self._studies.values())).searched_s = self._searched_s


def known_studies(
    plan: Plan, outbox: Outbox, storage: BaseStorage
) -> tuple[list[Study], set[str], int]:
    """The studies of a sweep, with all that its outbox knows of them.

    What an earlier driver did not tell them is told now: so the best of a study that has ended is
    known, and what confirms it stays part of the sweep.

    Returns:
        The studies, the keys of all trials that they know or the grid has, and how many
        configurations the storage lacked.

    Raises:
        DamagedError: what the storage has of one cannot be.
    """
    studies, taken = open_studies(plan, storage)
    lacked = learn_again(studies, taken, outbox)
    records = {record.key: record for record in outbox.trials()}
    Search(studies, plan.sweep.search, []).resume(records, history_in(outbox))
    return studies, taken, lacked


def history_in(outbox: Outbox) -> History:
    """The evaluations of trials as the outbox has them."""
    return lambda key: [evaluation for _, evaluation in outbox.evaluations(key)]


def _tagged(suggestion: Suggestion) -> list[Tagged]:
    tags = {**_tags(suggestion), "stage": "search"}
    if suggestion.judged:
        tags["rung"] = str(suggestion.judged)
    return [(trial, tags) for trial in suggestion.trials]


def _tags(suggestion: Suggestion) -> dict[str, str]:
    return {
        "study": suggestion.study,
        "suggestion": str(suggestion.number),
        "arm": str(suggestion.arm.index),
    }
