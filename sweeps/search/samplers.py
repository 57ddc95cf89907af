"""Which sampler of Optuna suggests configurations, by its name in a sweep file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import optuna
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
from sweeps.spec.search_spec import SamplerName

POPULATION = (8, 50)  # of a genetic sampler, smallest and largest

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_sampler(name: SamplerName, seed: int, study_seed: int, budget: int | None) -> BaseSampler:
    """Return a sampler for one suggestion. It keeps no state, so a restart changes nothing.

    Args:
        name: as in a sweep file.
        seed: of this suggestion.
        study_seed: the same for all suggestions of a study.
        budget: how many suggestions the study will make, or None if unknown.
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
            seed=study_seed,  # of the sequence; the storage knows which of its points is next
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
    """Context manager: silence Optuna's warnings of features that may still change.

    The tests check these features in the version of Optuna that we use.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
