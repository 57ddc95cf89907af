"""A source of trials that decides claims: it suggests further seeds until no claim is open.

What it suggests depends on the trials alone, with their results: so it continues after a kill, and
with larger limits, from the trials that the outbox has. Knows neither Ray nor MLflow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from analysis import AnalysisError
from analysis.claims.conclusions import Conclusion
from sweeps.deciding.evidence import Evidence
from sweeps.deciding.expected import expected_trials
from sweeps.deciding.further import Tagged, further_trials
from sweeps.deciding.results import results, verdicts_in_words
from sweeps.deciding.steps import OpenPair, Step, next_steps, open_pairs
from sweeps.planning.plan import Plan
from sweeps.process.summary import counted
from sweeps.records.events import EvaluationValues, History, TrialEvent
from sweeps.records.look_log import ClaimEvidence, Look
from sweeps.records.records import FURTHER, TrialRecord
from sweeps.search.queue import Queue, TrialSource
from trainables.config import TrialConfig

Judge = Callable[[Evidence], list[Conclusion]]


class Decider(TrialSource):
    """Suggests what an inner source does, and when that is over further seeds for open claims."""

    def __init__(
        self,
        plan: Plan,
        judge: Judge,
        inner: TrialSource | None = None,
        winners: Callable[[], Iterable[Tagged]] = tuple,
        announce: Callable[[Sequence[Tagged]], None] = lambda _: None,
        on_look: Callable[[Look], None] = lambda _: None,
        last_look: Look | None = None,
    ) -> None:
        """Begin with the trials of the grid; `resume` adds what earlier runs did.

        Args:
            plan: of a sweep that decides claims.
            judge: returns the verdicts on the claims.
            inner: a search of the sweep.
            winners: returns the trials that confirm winners, once the inner source is over.
            announce: called with trials before they are trained.
            on_look: called after each look at which the evidence had changed.
            last_look: of earlier runs.
        """
        assert plan.sweep.decide
        self._grid = plan.trials
        self._spec, self._seeds = plan.sweep.decide, plan.sweep.tested_seeds
        self._max_failures = plan.sweep.resources.max_failures
        self._judge, self._inner, self._winners = judge, inner or TrialSource(), winners
        self._announce, self._on_look = announce, on_look
        self._evidence = Evidence(plan)
        self._evidence.add((trial, {}) for trial in plan.trials)
        self._records: Mapping[str, TrialRecord] = {}  # what the outbox had, by key
        self._begun: set[str] = set()  # keys of all trials that were ever trained
        self._latest: dict[str, tuple[int, float]] = {}  # step and val_loss, by key
        self._has_winners = False
        self._last_look = last_look
        self._before_s, self._clock_s = last_look.trained_s if last_look else 0.0, math.nan
        self._seen = -1  # trials that had ended at the last look
        self.conclusions: list[Conclusion] = []  # at the last look
        self.problem = ""  # why the claims cannot be judged any more
        self._pairs: list[OpenPair] = []
        self._next: list[Step] = []
        self._steps_at = -1, -1  # trials that had ended and were known when these were found
        self._progress = ""
        self.storage_errors = self._inner.storage_errors

    # What earlier runs did.

    def resume(self, records: Mapping[str, TrialRecord], history: History, queue: Queue) -> None:
        """Continue from the trials of earlier runs.

        Args:
            records: all that the outbox has, removed ones included, by key.
            history: returns the evaluations that the outbox has of a trial.
            queue: for the trials with further seeds that are not done.
        """
        self._records = records
        for key, record in records.items():
            if record.status == "WAITING":
                continue
            self._begun.add(key)
            self._learn(key, history(key))
            if record.status == "FINISHED":
                self._finish(key)
            elif record.status == "FAILED" and not record.is_left(self._max_failures):
                self._evidence.fail(key)
        queue.put(self._adopt([(trial, {}) for trial in self._grid]))

    def _adopt(self, tagged: Sequence[Tagged]) -> list[TrialConfig]:
        """Add trials, with those of further seeds that earlier runs began; return what is left."""
        further = list(further_trials(tagged, self._records.values(), is_deciding=True))
        self._evidence.add([*tagged, *further])
        self._announce(further)
        return [trial for trial, _ in further if self._is_left(trial)]

    def _is_left(self, trial: TrialConfig) -> bool:
        return self._records[trial.key].is_left(self._max_failures)

    # What happens.

    def on_event(self, event: TrialEvent, queue: Queue) -> None:
        """Take an event of a trial; its result counts at the next look."""
        self._start_clock()
        self._inner.on_event(event, queue)
        self._begun.add(event.key)
        self._learn(event.key, event.evaluations)
        if event.kind == "finished":
            self._finish(event.key)
        elif event.kind == "failed":
            self._evidence.fail(event.key)

    def _learn(self, key: str, evaluations: Sequence[EvaluationValues]) -> None:
        for evaluation in evaluations:
            latest = evaluation["step"], evaluation["val_loss"]
            self._latest[key] = max(latest, self._latest.get(key, latest), key=lambda at: at[0])

    def _finish(self, key: str) -> None:
        self._evidence.finish(key, self._latest.pop(key, (0, math.nan))[1])

    # What comes next.

    def suggest(self) -> list[TrialConfig]:
        """Return the next trials of the inner source; then those of the most useful next seed."""
        self._start_clock()
        if trials := self._inner.suggest():
            return trials
        if not self._inner.is_over:
            return []
        if not self._has_winners:
            self._has_winners = True
            if left := self._adopt(list(self._winners())):
                return left
        steps = self._steps()
        if not steps:
            return []
        tagged = [(trial, {**self._evidence.tags(trial), **FURTHER}) for trial in steps[0].trials]
        self._announce(tagged)
        self._evidence.add(tagged)
        return [trial for trial, _ in tagged]

    def _start_clock(self) -> None:
        if math.isnan(self._clock_s):
            self._clock_s = time.monotonic()

    def _steps(self) -> list[Step]:
        """Return the steps that the limits allow, the most useful first."""
        self._look()
        if self.is_out_of_time:
            return []
        evidence, known = self._evidence, (self._seen, len(self._evidence.keys))
        if known != self._steps_at:  # Ray asks many times a second
            self._steps_at = known
            found = next_steps(self._pairs, evidence, self._seeds, evidence.is_known)
            self._next = [step for step in found if len(step.trials) <= self._trials_left]
        return self._next

    @property
    def _trials_left(self) -> float:
        """How many trials the sweep may still begin."""
        if self._spec.trials is None:
            return math.inf
        return self._spec.trials - len(self._evidence.keys | self._begun)

    @property
    def is_out_of_time(self) -> bool:
        """True if the sweep has been trained as long as it may."""
        return self._spec.hours is not None and self.trained_s >= self._spec.hours * 3600

    @property
    def trained_s(self) -> float:
        """The time for which the sweep has been trained, over all runs."""
        if math.isnan(self._clock_s):
            return self._before_s
        return self._before_s + time.monotonic() - self._clock_s

    # Looking.

    def _look(self) -> None:
        """Judge the claims, if trials have ended since the last look."""
        if self._evidence.ended == self._seen or self.problem:
            return
        self._seen = self._evidence.ended
        try:
            self.conclusions = self._judge(self._evidence)
        except AnalysisError as error:  # trials of winners that cannot be compared, say
            self.problem, self._pairs = str(error), []
            return
        self._pairs = open_pairs(self.conclusions, self._evidence)
        self._progress = f"{self.verdicts_in_words}{self._next_in_words()}"
        claims = tuple(map(_evidence_of, self.conclusions))
        is_new = self._last_look is None or claims != self._last_look.claims
        if is_new or self._spec.hours is not None:  # a look keeps the time
            now_ms = time.time_ns() // 1_000_000
            self._last_look = Look(now_ms, self._evidence.finished, self.trained_s, claims)
            self._on_look(self._last_look)

    def _next_in_words(self) -> str:
        """Return what the open contrasts need next, such as ``; next 12 trials in 4 cells``."""
        evidence = self._evidence
        steps = next_steps(self._pairs, evidence, self._seeds, evidence.is_finished)
        trials = {trial.key for step in steps for trial in step.trials}
        cells = {step.cell for step in steps}
        if not trials:
            return ""
        return f"; next {counted(len(trials), 'trial')} in {counted(len(cells), 'cell')}"

    @property
    def verdicts_in_words(self) -> str:
        """How many claims were decided at the last look."""
        return verdicts_in_words(self.conclusions)

    @property
    def expected_trials(self) -> int | None:
        """How many further trials the open claims will take; None while no trial is finished."""
        if not self._evidence.finished:
            return None
        self._look()
        found = expected_trials(self.conclusions, self._pairs, self._evidence, self._seeds)
        return int(min(found, max(0, self._trials_left)))

    # The inner source.

    @property
    def progress_in_words(self) -> str:
        """How many claims are decided, and what comes next."""
        return self._progress

    def results(self) -> list[str]:
        """Return the verdicts at the last look, and what would decide the open claims."""
        if self.problem:
            return [f"the claims cannot be judged: {self.problem}"]
        limits = self._spec.in_words
        return list(results(self.conclusions, self._pairs, self._evidence, self._seeds, limits))

    @property
    def stops_trials(self) -> bool:
        """True if the inner source may stop a running trial by its evaluations."""
        return self._inner.stops_trials

    @property
    def is_suggesting(self) -> bool:
        """True if it may still suggest something."""
        return self._inner.is_suggesting or self._seen < 0 or bool(self._pairs)

    @property
    def is_over(self) -> bool:
        """True if it will add nothing to the queue any more."""
        is_done = self._inner.is_over and self._has_winners and self._evidence.is_complete
        return is_done and not self._steps()

    @property
    def remaining_in_words(self) -> str:
        """A description of what the inner source will suggest."""
        return self._inner.remaining_in_words

    def without_result(self) -> list[str]:
        """Return the labels of studies in which no trial was trained to its end."""
        return self._inner.without_result()

    def exhausted(self) -> list[str]:
        """Return which studies found nothing more to suggest below their limits, and why."""
        return self._inner.exhausted()


def _evidence_of(conclusion: Conclusion) -> ClaimEvidence:
    decision = conclusion.decision
    return ClaimEvidence(
        conclusion.statement,
        conclusion.verdict,
        max(0.0, -math.log10(decision.supports)),
        max(0.0, -math.log10(decision.refutes)),
    )
