"""Early stopping of a search: at which steps trials may be stopped, and how much that saves.

Imports no Optuna.
"""

from __future__ import annotations

import bisect
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, median

from sweeps.planning.study_spec import StudySpec
from sweeps.spec.search_spec import SamplerName, Stopping
from trainables.config import TrainingConfig

STARTUP = (4, 10)  # random suggestions of a study, fewest and most
SIMULATED = 2_000  # configurations, at least

StoppingRule = Callable[[float, Sequence[int]], int | None]  # the rung that stops a loss, if any


def random_startup(budget: int | None) -> int:
    """Return how many suggestions of a study are random, before the sampler learns from results.

    Args:
        budget: suggestions that the study will make, or None if that is not known.
    """
    fewest, most = STARTUP
    return most if budget is None else min(most, max(fewest, budget // 4))


def learnt_share(sampler: SamplerName, suggestions: int) -> float:
    """Return the part of a study's suggestions that the sampler makes from earlier results."""
    if sampler in ("random", "qmc"):
        return 0.0
    return max(0, suggestions - random_startup(suggestions)) / suggestions


def first_rung(stopping: Stopping, study: StudySpec) -> int:
    """Return the first step at which the pruner may stop a configuration of a study."""
    steps = [arm.defaults["training.max_steps"] for arm in study.arms]
    shortest = min(count for count in steps if isinstance(count, int))
    return stopping.first_step or math.ceil(shortest / stopping.reduction)


def rungs(stopping: Stopping, first_step: int, training: TrainingConfig) -> list[int]:
    """Return the steps of the evaluations at which the pruner may stop a trial; never the last.

    Args:
        stopping: the rule of the pruner.
        first_step: result of `first_rung`.
        training: of the trial.
    """
    evaluated = range(training.eval_every, training.last_step, training.eval_every)
    if stopping.rule == "none":
        return []
    if stopping.rule == "median":
        return [step for step in evaluated if step >= first_step]
    found: list[int] = []
    next_rung = first_step
    for step in evaluated:
        if step >= next_rung:
            found.append(step)
            while next_rung <= step:
                next_rung *= stopping.reduction
    return found


def trained_share(
    stopping: Stopping,
    first_step: int,
    training: TrainingConfig,
    suggestions: int,
    learnt: float = 0.0,
) -> float:
    """Simulate the mean part of its steps that a suggestion trains, from 0 to 1.

    The simulation assumes that configurations keep their ranks from rung to rung, that the first
    ones come in random order, and that the sampler's later ones are among the better half.

    Args:
        stopping: the rule of the pruner.
        first_step: result of `first_rung`.
        training: of the configurations.
        suggestions: how many the study makes.
        learnt: the part of them that the sampler makes from earlier results.
    """
    steps = rungs(stopping, first_step, training)
    generator = random.Random(0)
    shares: list[float] = []
    while steps and len(shares) < SIMULATED:
        rule = _median(stopping) if stopping.rule == "median" else _asha(stopping)
        count = min(suggestions, SIMULATED)
        for number in range(count):
            is_learnt = number >= count * (1 - learnt)
            stopped_at = rule(generator.random() * (0.5 if is_learnt else 1.0), steps)
            shares.append((stopped_at or training.last_step) / training.last_step)
    return fmean(shares) if shares else 1.0


def _median(stopping: Stopping) -> StoppingRule:
    finished: list[float] = []

    def rule(loss: float, steps: Sequence[int]) -> int | None:
        if len(finished) >= stopping.startup and loss > median(finished):
            return steps[0]
        bisect.insort(finished, loss)
        return None

    return rule


def _asha(stopping: Stopping) -> StoppingRule:
    reached: defaultdict[int, list[float]] = defaultdict(list)  # losses, by rung

    def rule(loss: float, steps: Sequence[int]) -> int | None:
        for step in steps:
            losses = reached[step]
            bisect.insort(losses, loss)
            if bisect.bisect_left(losses, loss) >= max(1, len(losses) // stopping.reduction):
                return step
        return None

    return rule
