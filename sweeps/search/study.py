"""A study: Optuna suggests configurations of one cell and is told what became of them.

What it knows lies in an Optuna storage, so it goes on where it was; the suggestion after a history
depends on that history and the seed alone. Knows neither Ray nor MLflow.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import optuna
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from sweeps.planning.feasibility import allowed
from sweeps.planning.plan import Plan
from sweeps.planning.rungs import first_rung, rungs
from sweeps.planning.study_spec import StudySpec
from sweeps.records.outbox import Outbox
from sweeps.search.samplers import Chooser, experimental, make_pruner, make_sampler, picker, reason
from sweeps.search.study_storage import DamagedError
from sweeps.search.suggestion import Suggestion
from sweeps.search.warm_start import (
    MEASURED,
    Observation,
    Observed,
    from_outbox,
    unknown_in_outbox,
)
from sweeps.spec.constraints import broken
from sweeps.spec.search_spec import Objective, SearchSpec
from trainables.config import TrialConfig

ASKS = 20  # of the sampler, for something new; then by chance
MAX_LABEL = 300  # characters of a study's name: a database has 512
RANDOM_ASKS = 200  # then there is nothing new
REJECTED = "rejected"  # attributes of Optuna's trials: why a suggestion was not trained
REPEATED = "it was there before"  # such a reason
FROM = "from"  # the sweep that an observation comes from, if this study did not suggest it
ENDED = "ended"  # why it was stopped early, or failed
EXHAUSTED = "exhausted"  # attributes of the study
SEARCHED_S = "searched_s"


class Study:
    """The Optuna study of a cell. Not shared between processes that suggest."""

    def __init__(
        self,
        cell: StudySpec,
        search: SearchSpec,
        seeds: Sequence[int],
        storage: BaseStorage,
        sweep: str,
        budget: int | None,
        costs: Mapping[str, Callable[[TrialConfig], float]],
        taken: set[str],
    ) -> None:
        """Open the study, or begin it.

        Args:
            cell: what to tune.
            search: how.
            seeds: each configuration is trained with all of them.
            storage: of Optuna.
            sweep: its name, for the name of the study.
            budget: how many suggestions the study will make, if that is known.
            costs: gives the objectives that are known of a trial before it is trained.
            taken: the keys of all trials of the sweep, which it adds to: none is suggested again.

        Raises:
            DamagedError: what the storage has of it cannot be.
        """
        self.cell, self.label = cell, cell.label
        self.seeds = seeds
        self._search, self._sweep, self._budget = search, sweep, budget
        self._costs = costs
        digest = cell.digest(search.objectives, list(seeds), search.early.model_dump())
        self._stem = f"{sweep}: {cell.label[:MAX_LABEL]} ["
        self.name = f"{self._stem}{digest}]"
        self._first_step = first_rung(search.early, cell)
        self._optuna = optuna.create_study(
            storage=storage,
            study_name=self.name,
            load_if_exists=True,
            pruner=make_pruner(search.early, self._first_step),
            directions=["minimize"] * len(search.objectives),
        )
        if not self._optuna.metric_names:
            with experimental():
                self._optuna.set_metric_names(list(search.objectives))
        self._handles: dict[int, optuna.Trial] = {}
        self._taken = taken
        self.used = 0  # suggestions that count against the budget
        # Whether it has found nothing new that the constraints allow.
        self.is_exhausted = self._optuna.user_attrs.get(EXHAUSTED) == search.constraints
        for frozen in self._frozen():
            if REJECTED not in frozen.user_attrs:
                try:
                    self._take_up(frozen)
                except (ValueError, LookupError, TypeError) as error:
                    raise DamagedError(f"trial {frozen.number} of {self.name}: {error}") from None

    def suggestions(self) -> Iterator[tuple[Suggestion, TrialState]]:
        """All that is part of the sweep so far, in order."""
        for frozen in self._frozen():
            if self._is_own(frozen):
                suggestion = self._read(frozen)
                suggestion.judged = frozen.last_step or 0
                yield suggestion, frozen.state

    @property
    def since_improved(self) -> int:
        """How many suggestions in a row, the last ones that ended, improved nothing."""
        best = {one.number for one in self._best(1)}
        if len(self._search.objectives) > 1:
            best = {one.number for one in self._optuna.best_trials}
        ended = [
            one.number for one in self._frozen() if one.state.is_finished() and self._is_own(one)
        ]  # fmt: skip
        last = max((place for place, number in enumerate(ended, 1) if number in best), default=0)
        return len(ended) - last

    def best(self, top: int) -> list[Suggestion]:
        """The best configurations by the first objective; of several, among the Pareto front."""
        return [self._read(one) for one in self._best(top)]

    def _best(self, top: int) -> list[FrozenTrial]:
        if len(self._search.objectives) > 1:
            found = self._optuna.best_trials
        else:
            found = [one for one in self._frozen() if one.state == TrialState.COMPLETE]
        return sorted(found, key=lambda one: (one.values[0], one.number))[:top]

    def ask(self) -> Suggestion | None:
        """Something to train that is new and allowed; None where the sampler finds nothing."""
        if self.is_exhausted:
            return None
        for attempt in range(ASKS + RANDOM_ASKS):
            number = len(self._frozen())
            name = self._search.sampler if attempt < ASKS else "random"
            self._optuna.sampler = make_sampler(
                name, self._seed(number), self._seed("study"), self._budget
            )
            trial = self._optuna.ask()
            try:
                made = self._made(trial.number, trial)
            except _RejectedError as problem:
                self._reject(trial, problem)
                continue
            self._taken.update(made.keys)
            self.used += 1
            self._handles[trial.number] = trial
            return made
        self.is_exhausted = True
        self._optuna.set_user_attr(EXHAUSTED, self._search.constraints)
        return None

    @property
    def why_exhausted(self) -> str:
        """Why it suggests nothing more, and the remedy; nothing where it may."""
        if not self.is_exhausted:
            return ""
        found = allowed(self.cell, self._search.constraints, self.seeds[0])
        if found.is_all and found.keys <= self._taken:
            count = len(found.keys)
            return f"all {count} configurations of its space were tried; widen it for more"
        frozen = self._frozen()
        reasons = Counter(
            one.user_attrs.get(REJECTED) == REPEATED for one in frozen if REJECTED in one.user_attrs
        )
        repeated, refused = reasons[True], reasons[False]
        if not repeated and refused == len(frozen):
            return (
                f"no suggestion satisfies the constraints ({refused} tried); loosen them, or narrow"
                " the ranges to where they hold"
            )
        return (
            f"nothing new is found any more: of {len(frozen)} suggestions {repeated} were there"
            f" before and {refused} are not allowed; widen its ranges"
        )

    def judge(self, suggestion: Suggestion) -> str:
        """Why a configuration of which all seeds stand at a rung is to stop, or nothing."""
        rung = suggestion.at_rung()
        assert rung is not None
        suggestion.judged = rung
        trial = self._handle(suggestion.number)
        trial.report(suggestion.mean_at(rung), rung)
        if trial.should_prune():
            return reason(self._search.early, rung)
        return ""

    def finished(self, suggestion: Suggestion) -> None:
        """All its trials are finished: learn their mean."""
        values = [self._value(name, suggestion) for name in self._search.objectives]
        self._optuna.tell(suggestion.number, values)

    def stopped(self, suggestion: Suggestion, why: str) -> None:
        """It was hopeless."""
        self._handle(suggestion.number).set_user_attr(ENDED, why)
        self._optuna.tell(suggestion.number, state=TrialState.PRUNED)

    def failed(self, suggestion: Suggestion, why: str, diverged: bool) -> None:
        """A trial failed. One that diverged is a bad choice, any other failure says nothing."""
        self._handle(suggestion.number).set_user_attr(ENDED, why)
        state = TrialState.PRUNED if diverged else TrialState.FAIL
        self._optuna.tell(suggestion.number, state=state)

    def why_ended(self, suggestion: Suggestion) -> str:
        """Why it was stopped early, or failed; nothing where it was trained to its end."""
        return str(self._frozen()[suggestion.number].user_attrs.get(ENDED, ""))

    @property
    def searched_s(self) -> float:
        """Seconds of searching, for a limit; kept by one study for all."""
        return float(self._optuna.user_attrs.get(SEARCHED_S, 0))

    @searched_s.setter
    def searched_s(self, seconds: float) -> None:
        self._optuna.set_user_attr(SEARCHED_S, seconds)

    @property
    def follows_another(self) -> bool:
        """Whether there was a study of this cell before, with other ranges or seeds."""
        names = optuna.get_all_study_names(self._optuna._storage)
        return any(name.startswith(self._stem) and name != self.name for name in names)

    def has_learnt_from(self, sweep: str) -> bool:
        """Whether it has observations of another sweep."""
        return any(one.user_attrs.get(FROM) == sweep for one in self._frozen())

    def learn(self, observations: Mapping[str, Observation]) -> int:
        """Take the trials of another sweep for observations, each configuration once.

        Args:
            observations: by key; a configuration counts if all its seeds are there.

        Returns:
            How many configurations were new.
        """
        learnt = 0
        for made, params in self._suggested_by(observations):
            self._add(made, params, [observations[key] for key in made.keys])
            learnt += 1
        return learnt

    def restore(self, observations: Mapping[str, Observation]) -> int:
        """Make suggestions of this sweep again that the storage lost; `Search.resume` goes on.

        Args:
            observations: by key; a configuration counts if all its seeds are there.

        Returns:
            How many there were.
        """
        restored = 0
        for made, params in self._suggested_by(observations):
            self._suggest_again(made, params)
            self.used += 1
            restored += 1
        return restored

    def _suggested_by(
        self, observations: Mapping[str, Observation]
    ) -> Iterator[tuple[Suggestion, Mapping[str, Any]]]:
        """New suggestions that are among observations, with their parameters."""
        for observation in observations.values():
            for arm in self.cell.arms:
                if not observation.is_of(arm):
                    continue
                chooser = Observed(arm, observation)
                try:
                    made = self._made(0, chooser)
                except _RejectedError:
                    continue
                if observation.key in made.keys and observations.keys() >= set(made.keys):
                    yield made, chooser.params

    def _suggest_again(
        self, made: Suggestion, params: Mapping[str, Any], sweep: str | None = None
    ) -> Suggestion:
        """Let Optuna suggest what was suggested before, by another sweep if that is given."""
        with experimental():
            self._optuna.sampler = PartialFixedSampler(dict(params), RandomSampler(0))
        trial = self._optuna.ask()
        if sweep is not None:
            trial.set_user_attr(FROM, sweep)
        again = self._made(trial.number, trial)
        assert again.keys == made.keys
        self._handles[trial.number] = trial
        self._taken.update(again.keys)
        return again

    def _add(
        self, made: Suggestion, params: Mapping[str, Any], observations: Sequence[Observation]
    ) -> None:
        """Let Optuna live through an observation as if it had suggested it."""
        again = self._suggest_again(made, params, observations[0].sweep)
        for observation in observations:
            for evaluation in observation.evaluations:
                again.on_evaluation(observation.key, evaluation)
        while again.at_rung() is not None:
            self.judge(again)
        if why := next((one.stopped for one in observations if one.stopped), ""):
            self.stopped(again, why)
        else:
            self.finished(again)
        self.used += observations[0].sweep == self._sweep

    def _take_up(self, frozen: FrozenTrial) -> None:
        """Read what an earlier process left; what it left half done is rejected."""
        try:
            if frozen.state.is_finished():
                made = self._read(frozen)
            elif FROM in frozen.user_attrs:
                raise _RejectedError("the process died while it learnt")
            else:
                made = self._made(frozen.number, FixedTrial(frozen.params))
        except _RejectedError as problem:
            self._reject(self._handle(frozen.number), problem)
            return
        self._taken.update(made.keys)
        self.used += self._is_own(frozen)

    def _reject(self, trial: optuna.Trial, problem: Exception) -> None:
        trial.set_user_attr(REJECTED, str(problem))
        self._optuna.tell(trial, state=TrialState.FAIL)

    def _read(self, frozen: FrozenTrial) -> Suggestion:
        return self._configured(frozen.number, FixedTrial(frozen.params))

    def _made(self, number: int, chooser: Chooser) -> Suggestion:
        """What was chosen.

        Raises:
            _RejectedError: it cannot be, is not allowed, or was there before.
        """
        try:
            made = self._configured(number, chooser)
            if constraint := broken(self._search.constraints, made.trials[0].flat):
                raise _RejectedError(f"it breaks the constraint {constraint}")
        except ValueError as error:  # a `UserError`, or a parameter that Optuna lacks
            raise _RejectedError(str(error)) from None
        if not self._taken.isdisjoint(made.keys):
            raise _RejectedError(REPEATED)
        return made

    def _configured(self, number: int, chooser: Chooser) -> Suggestion:
        arm, values = self.cell.choose(picker(chooser))
        trials = tuple(arm.configure(values, seed) for seed in self.seeds)
        steps = rungs(self._search.early, self._first_step, trials[0].training)
        return Suggestion(self.label, number, arm, trials, tuple(steps))

    def _value(self, objective: Objective, suggestion: Suggestion) -> float:
        if objective in self._costs:
            return float(self._costs[objective](suggestion.trials[0]))
        name = MEASURED[objective]
        return fmean(suggestion.measured[key][name] for key in suggestion.keys)

    def _is_own(self, frozen: FrozenTrial) -> bool:
        """Whether a trial of Optuna is part of the sweep, and counts."""
        attributes = frozen.user_attrs
        return REJECTED not in attributes and attributes.get(FROM, self._sweep) == self._sweep

    def _handle(self, number: int) -> optuna.Trial:
        if number not in self._handles:  # of an earlier process
            trial_id = self._frozen()[number]._trial_id
            self._handles[number] = optuna.Trial(self._optuna, trial_id)
        return self._handles[number]

    def _frozen(self) -> list[FrozenTrial]:
        return self._optuna.get_trials(deepcopy=False)

    def _seed(self, what: object) -> int:
        words = f"{self.seeds[0]}/{self.label}/{what}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4])


def open_studies(plan: Plan, storage: BaseStorage) -> tuple[list[Study], set[str]]:
    """The studies of a plan, and the keys of all trials that are part of the sweep.

    Raises:
        DamagedError: what the storage has of one cannot be.
    """
    sweep = plan.sweep
    taken = {trial.key for trial in plan.trials}
    studies = [
        Study(cell, sweep.search, sweep.seeds, storage, sweep.name, plan.share, plan.costs, taken)
        for cell in plan.studies
    ]
    return studies, taken


def learn_again(studies: Sequence[Study], taken: Container[str], outbox: Outbox) -> int:
    """Let studies have what the outbox has of their sweep, where they lack it.

    What is done is learnt, what is under way or failed is suggested again.

    Args:
        studies: of the sweep.
        taken: the keys of the trials that they know, which grows with them.
        outbox: of the sweep.

    Returns:
        How many configurations they lacked.
    """
    done = from_outbox(outbox, taken)
    lacked = sum(study.learn(done) for study in studies)
    others = unknown_in_outbox(outbox, taken)
    return lacked + sum(study.restore(others) for study in studies)


class _RejectedError(ValueError):
    """A suggestion that is not trained."""
