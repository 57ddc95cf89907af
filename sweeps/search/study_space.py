"""The configurations of a study: from values that Optuna chose to trials, if they are allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from optuna.distributions import CategoricalChoiceType

from sweeps.planning.rungs import first_rung, rungs
from sweeps.planning.study_spec import Pick, StudySpec
from sweeps.search.suggestion import Suggestion
from sweeps.search.warm_start import MEASURED
from sweeps.spec.constraints import broken
from sweeps.spec.search_spec import Objective, Parameter, SearchSpec
from trainables.config import TrialConfig

REPEATED = "it was there before"  # why a suggestion is rejected


class RejectedError(ValueError):
    """A suggestion is not to be trained; the message says why."""


class Chooser(Protocol):
    """Chooses values of parameters: `optuna.Trial`, `optuna.trial.FixedTrial`, `ReplayedTrial`."""

    def suggest_categorical(
        self, name: str, choices: Sequence[CategoricalChoiceType], /
    ) -> CategoricalChoiceType: ...
    def suggest_int(
        self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False
    ) -> int: ...
    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        /,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float: ...


@dataclass(frozen=True)
class StudySettings:
    """Settings that all studies of a sweep share."""

    sweep: str  # its name
    search: SearchSpec
    seeds: Sequence[int]  # each configuration is trained with all of them
    budget: int | None  # how many suggestions a study will make, or None if unknown
    costs: Mapping[str, Callable[[TrialConfig], float]]  # objectives known before training
    taken: set[str]  # keys of all trials of the sweep, which grows: none is suggested twice

    def values(self, suggestion: Suggestion) -> list[float]:
        """Return the objectives of a configuration: means over its trials, all finished."""
        return [self._value(objective, suggestion) for objective in self.search.objectives]

    def _value(self, objective: Objective, suggestion: Suggestion) -> float:
        if objective in self.costs:
            return float(self.costs[objective](suggestion.trials[0]))
        name = MEASURED[objective]
        return fmean(suggestion.latest[key][name] for key in suggestion.keys)


@dataclass
class StudySpace:
    """The configurations that one study may suggest."""

    spec: StudySpec
    settings: StudySettings

    @property
    def first_rung(self) -> int:
        """The step from which configurations may be pruned."""
        return first_rung(self.settings.search.early, self.spec)

    def configure(self, number: int, chooser: Chooser) -> Suggestion:
        """Return the configuration that a trial of Optuna, by its number, stands for.

        Raises:
            ValueError: there is no such configuration.
        """
        arm, values = self.spec.choose(_picker(chooser))
        trials = tuple(arm.configure(values, seed) for seed in self.settings.seeds)
        steps = rungs(self.settings.search.early, self.first_rung, trials[0].training)
        return Suggestion(self.spec.label, number, arm, trials, tuple(steps))

    def configure_new(self, number: int, chooser: Chooser) -> Suggestion:
        """Return a configuration that is allowed and was not part of the sweep before.

        Raises:
            RejectedError: it is not, or there is no such configuration.
        """
        try:
            made = self.configure(number, chooser)
            if constraint := broken(self.settings.search.constraints, made.trials[0].flat):
                raise RejectedError(f"it breaks the constraint {constraint}")
        except ValueError as error:  # a `UserError`, or a parameter that Optuna lacks
            raise RejectedError(str(error)) from None
        if not self.settings.taken.isdisjoint(made.keys):
            raise RejectedError(REPEATED)
        return made


def _picker(chooser: Chooser) -> Pick:
    """Return a function by which a `StudySpec` lets a trial of Optuna choose."""

    def pick(name: str, parameter: Parameter) -> CategoricalChoiceType:
        if parameter.choices is not None:
            return chooser.suggest_categorical(name, parameter.choices)
        low, high, log = parameter.low, parameter.highest, parameter.log
        assert low is not None
        if isinstance(low, int) and isinstance(high, int):
            return chooser.suggest_int(name, low, high, step=int(parameter.step or 1), log=log)
        return chooser.suggest_float(name, low, high, step=parameter.step, log=log)

    return pick
