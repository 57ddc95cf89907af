"""A study: Optuna suggests configurations of one space, and learns how they end.

What it knows is in an Optuna storage, so a later process continues it; a suggestion depends on
what ended before it and the seed alone. Knows neither Ray nor MLflow.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from sweeps.planning.feasibility import allowed
from sweeps.planning.plan import Plan
from sweeps.planning.study_spec import StudySpec
from sweeps.records.events import EndCause
from sweeps.search.pruners import make_pruner, pruning_reason
from sweeps.search.samplers import make_sampler
from sweeps.search.stored_study import ENDED, FROM, REJECTED, StoredStudy
from sweeps.search.study_space import REPEATED, RejectedError, StudySettings, StudySpace
from sweeps.search.study_storage import DamagedError
from sweeps.search.suggestion import Suggestion

ASKS = 20  # of the sampler, for something new; then of the random sampler
RANDOM_ASKS = 200  # then there is nothing new
MAX_LABEL = 300  # characters of a study's name: a database has 512


class Study:
    """Suggests the configurations of a `StudySpec`. One process at a time may ask it."""

    def __init__(self, spec: StudySpec, settings: StudySettings, storage: BaseStorage) -> None:
        """Open the study, or begin it.

        Raises:
            DamagedError: the storage has something that this study cannot have written.
        """
        search, seeds = settings.search, list(settings.seeds)
        digest = spec.digest(search.objectives, seeds, search.early.model_dump())
        self.label = spec.label
        self._stem = f"{settings.sweep}: {spec.label[:MAX_LABEL]} ["
        self.space = StudySpace(spec, settings)
        self.stored = StoredStudy(
            f"{self._stem}{digest}]",
            storage,
            search.objectives,
            make_pruner(search.early, self.space.first_rung),
        )
        self.used = 0  # suggestions that count against the budget
        self.is_exhausted = self.stored.is_exhausted(search.constraints)
        for frozen in self.stored.trials:
            if REJECTED not in frozen.user_attrs:
                try:
                    self._restore(frozen)
                except (ValueError, LookupError, TypeError) as error:
                    raise DamagedError(
                        f"trial {frozen.number} of {self.stored.name}: {error}"
                    ) from None

    def _restore(self, frozen: FrozenTrial) -> None:
        """Read a trial of an earlier process; reject it if that process died half way."""
        try:
            if frozen.state.is_finished():
                made = self._read(frozen)
            elif FROM in frozen.user_attrs:
                raise RejectedError("the process died while it learnt")
            else:
                made = self.space.configure_new(frozen.number, FixedTrial(frozen.params))
        except RejectedError as problem:
            self.stored.reject(frozen.number, str(problem))
            return
        self.space.settings.taken.update(made.keys)
        self.used += self._is_own(frozen)

    # What it has suggested.

    def suggestions(self) -> Iterator[tuple[Suggestion, TrialState]]:
        """Yield all configurations that are part of the sweep so far, in order."""
        for frozen in self.stored.trials:
            if self._is_own(frozen):
                suggestion = self._read(frozen)
                suggestion.last_rung = frozen.last_step or 0
                yield suggestion, frozen.state

    def best(self, top: int) -> list[Suggestion]:
        """Return the best configurations by the first objective.

        Of several objectives, only those on the Pareto front count.
        """
        return [self._read(frozen) for frozen in self._best(top)]

    def _best(self, top: int) -> list[FrozenTrial]:
        if len(self.space.settings.search.objectives) > 1:
            found = self.stored.front
        else:
            found = [frozen for frozen in self.stored.trials if frozen.state == TrialState.COMPLETE]
        return sorted(found, key=lambda frozen: (frozen.values[0], frozen.number))[:top]

    @property
    def since_improved(self) -> int:
        """How many suggestions ended since the last one that improved anything."""
        several = len(self.space.settings.search.objectives) > 1
        best = {frozen.number for frozen in (self.stored.front if several else self._best(1))}
        ended = [
            frozen.number
            for frozen in self.stored.trials
            if frozen.state.is_finished() and self._is_own(frozen)
        ]
        last = max((place for place, number in enumerate(ended, 1) if number in best), default=0)
        return len(ended) - last

    @property
    def follows_another(self) -> bool:
        """True if the sweep had a study of this label before, with other ranges or seeds."""
        return self.stored.has_others(self._stem)

    def has_learnt_from(self, sweep: str) -> bool:
        """Return whether it has trials of another sweep."""
        return any(frozen.user_attrs.get(FROM) == sweep for frozen in self.stored.trials)

    # What it suggests.

    def ask(self) -> Suggestion | None:
        """Suggest a configuration that is new and allowed, or None if none is found."""
        if self.is_exhausted:
            return None
        settings = self.space.settings
        for attempt in range(ASKS + RANDOM_ASKS):
            number = len(self.stored.trials)
            name = settings.search.sampler if attempt < ASKS else "random"
            seeds = self._seed(number), self._seed("study")
            trial = self.stored.ask(make_sampler(name, *seeds, settings.budget))
            try:
                made = self.space.configure_new(trial.number, trial)
            except RejectedError as problem:
                self.stored.reject(trial.number, str(problem))
                continue
            settings.taken.update(made.keys)
            self.used += 1
            return made
        self.is_exhausted = True
        self.stored.set_exhausted(settings.search.constraints)
        return None

    def ask_again(
        self, known: Suggestion, params: Mapping[str, object], sweep: str | None = None
    ) -> Suggestion:
        """Suggest a known configuration, as if the sampler had chosen it.

        Args:
            known: the configuration.
            params: its values, by the names of the study's parameters.
            sweep: the one that trained it, if it is learnt from its trials.
        """
        settings = self.space.settings
        trial = self.stored.ask_again(params, sweep)
        made = self.space.configure_new(trial.number, trial)
        assert made.keys == known.keys
        settings.taken.update(made.keys)
        self.used += sweep in (None, settings.sweep)
        return made

    @property
    def why_exhausted(self) -> str:
        """Why it suggests nothing more, and the remedy; empty while it may."""
        if not self.is_exhausted:
            return ""
        settings = self.space.settings
        found = allowed(self.space.spec, settings.search.constraints, settings.seeds[0])
        if found.is_all and found.keys <= settings.taken:
            count = len(found.keys)
            return f"all {count} configurations of its space were tried; widen it for more"
        trials = self.stored.trials
        reasons = [each.user_attrs[REJECTED] for each in trials if REJECTED in each.user_attrs]
        repeated = Counter(reasons)[REPEATED]
        refused = len(reasons) - repeated
        if not repeated and refused == len(trials):
            return (
                f"no suggestion satisfies the constraints ({refused} tried); loosen them, or narrow"
                " the ranges to where they hold"
            )
        return (
            f"nothing new is found any more: of {len(trials)} suggestions {repeated} were there"
            f" before and {refused} are not allowed; widen its ranges"
        )

    # What it learns of a suggestion.

    def should_prune(self, suggestion: Suggestion) -> bool:
        """Report a configuration at the rung that its seeds have reached, and ask the pruner.

        Returns:
            Whether it is to stop there.
        """
        rung = suggestion.reached_rung
        assert rung is not None
        suggestion.last_rung = rung
        return self.stored.should_prune(suggestion.number, rung, suggestion.mean_at(rung))

    def pruning_reason(self, suggestion: Suggestion) -> str:
        """Return why a configuration is pruned at its last rung, in words."""
        return pruning_reason(self.space.settings.search.early, suggestion.last_rung)

    def finished(self, suggestion: Suggestion) -> None:
        """Take the result of a configuration: the means over its trials, which have finished."""
        self.stored.complete(suggestion.number, self.space.settings.values(suggestion))

    def pruned(self, suggestion: Suggestion, reason: str) -> None:
        """Mark a configuration as pruned at its last rung."""
        self.stored.end(suggestion.number, TrialState.PRUNED, reason)

    def failed(self, suggestion: Suggestion, cause: EndCause | None, reason: str) -> None:
        """Mark a configuration as failed.

        The sampler learns only from one that diverged: that was a bad choice.
        """
        diverged = cause == EndCause.DIVERGED
        state = TrialState.PRUNED if diverged else TrialState.FAIL
        self.stored.end(suggestion.number, state, reason)

    def end_reason(self, suggestion: Suggestion) -> str:
        """Return why a configuration was pruned or failed; empty if it was not."""
        return str(self.stored.trials[suggestion.number].user_attrs.get(ENDED, ""))

    def _read(self, frozen: FrozenTrial) -> Suggestion:
        return self.space.configure(frozen.number, FixedTrial(frozen.params))

    def _is_own(self, frozen: FrozenTrial) -> bool:
        """Return whether a trial of Optuna is part of the sweep, and counts."""
        attributes, sweep = frozen.user_attrs, self.space.settings.sweep
        return REJECTED not in attributes and attributes.get(FROM, sweep) == sweep

    def _seed(self, purpose: object) -> int:
        """Return a seed for a sampler, which differs between studies and purposes."""
        text = f"{self.space.settings.seeds[0]}/{self.label}/{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def open_studies(plan: Plan, storage: BaseStorage) -> tuple[list[Study], set[str]]:
    """Open the studies of a plan.

    Returns:
        The studies, and the keys of all trials that are part of the sweep, which grow with them.

    Raises:
        DamagedError: the storage has something that a study cannot have written.
    """
    sweep = plan.sweep
    taken = {trial.key for trial in plan.trials}
    settings = StudySettings(sweep.name, sweep.search, sweep.seeds, plan.share, plan.costs, taken)
    return [Study(spec, settings, storage) for spec in plan.studies], taken
