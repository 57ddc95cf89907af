"""Who suggests, and who calls a trial hopeless: by their names in a sweep file, from Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from sweeps.planning.rungs import random_startup
from sweeps.planning.study_spec import Pick
from sweeps.spec.search_spec import Parameter, SamplerName, Stopping

POPULATION = (8, 50)  # of a genetic sampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_sampler(name: SamplerName, seed: int, study_seed: int, budget: int | None) -> BaseSampler:
    """A sampler for one suggestion: it keeps nothing in memory, so that a restart changes nothing.

    Args:
        name: as in a sweep file.
        seed: of this suggestion.
        study_seed: the same for all suggestions of a study.
        budget: suggestions that the study will have, where that is known.
    """
    startup = random_startup(budget)
    least, most = POPULATION
    population = most if budget is None else min(most, max(least, budget // 5))
    makers: Mapping[SamplerName, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, group=True
        ),
        "gp": lambda: GPSampler(
            seed=seed, n_startup_trials=startup, warn_independent_sampling=False
        ),
        "cmaes": lambda: CmaEsSampler(
            seed=seed, consider_pruned_trials=True, warn_independent_sampling=False
        ),
        "random": lambda: RandomSampler(seed),
        "qmc": lambda: QMCSampler(
            scramble=True,
            seed=study_seed,  # of the sequence; which of its points is next lies in the storage
            independent_sampler=RandomSampler(seed),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        ),
        "nsga2": lambda: NSGAIISampler(seed=seed, population_size=population),
        "nsga3": lambda: NSGAIIISampler(seed=seed, population_size=population),
    }
    with experimental():
        return makers[name]()


@contextmanager
def experimental() -> Iterator[None]:
    """Use what Optuna may still change; its version is pinned by our tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def make_pruner(stopping: Stopping, first_step: int) -> BasePruner:
    """A pruner that is asked at the `rungs` only; what it compares lies in the storage."""
    if stopping.rule == "asha":
        return SuccessiveHalvingPruner(first_step, stopping.reduction)
    if stopping.rule == "median":
        return MedianPruner(n_startup_trials=stopping.startup)
    return NopPruner()


def reason(stopping: Stopping, step: int) -> str:
    """Why a configuration was stopped at a step, for people."""
    if stopping.rule == "asha":
        return f"asha: not among the best 1/{stopping.reduction} at step {step}"
    return f"median: worse than the median at step {step}"


class Chooser(Protocol):
    """What `optuna.Trial` and `optuna.trial.FixedTrial` have in common here."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any: ...
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


def picker(trial: Chooser) -> Pick:
    """Let a trial of Optuna choose the values of parameters."""

    def pick(name: str, parameter: Parameter) -> Any:
        if parameter.choices is not None:
            return trial.suggest_categorical(name, parameter.choices)
        low, high, log = parameter.low, parameter.highest, parameter.log
        assert low is not None
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(name, low, high, step=int(parameter.step or 1), log=log)
        return trial.suggest_float(name, low, high, step=parameter.step, log=log)

    return pick
