"""How a search goes on: which suggestions are random, where some are stopped, what that saves.

Knows no Optuna.
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

Judge = Callable[[float, Sequence[int]], int | None]  # at which of its rungs a loss is stopped


def random_startup(budget: int | None) -> int:
    """Return how many suggestions of a study are random, before a sampler has a model of them."""
    few, many = STARTUP
    return many if budget is None else min(many, max(few, budget // 4))


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
    """The evaluations at which a configuration is judged, by step; never the last one."""
    evaluated = range(training.eval_every, training.last_step, training.eval_every)
    if stopping.rule == "none":
        return []
    if stopping.rule == "median":
        return [step for step in evaluated if step >= first_step]
    found: list[int] = []
    wanted = first_step
    for step in evaluated:
        if step >= wanted:
            found.append(step)
            while wanted <= step:
                wanted *= stopping.reduction
    return found


def trained_share(
    stopping: Stopping,
    first_step: int,
    training: TrainingConfig,
    suggestions: int,
    learnt: float = 0.0,
) -> float:
    """Simulate what part of its steps a suggestion trains on average, from 0 to 1.

    Configurations keep their ranks from rung to rung. The first ones come in random order; those
    that a sampler makes from earlier results are among the better half of these.

    Args:
        stopping: the rule of the pruner.
        first_step: as `first_rung` gives it.
        training: of the configurations.
        suggestions: how many the study makes.
        learnt: the part of them that is made from earlier results, as `learnt_share` gives it.
    """
    steps = rungs(stopping, first_step, training)
    chance = random.Random(0)
    shares: list[float] = []
    while steps and len(shares) < SIMULATED:
        judge = _median(stopping) if stopping.rule == "median" else _asha(stopping)
        count = min(suggestions, SIMULATED)
        for number in range(count):
            is_learnt = number >= count * (1 - learnt)
            stopped_at = judge(chance.random() * (0.5 if is_learnt else 1.0), steps)
            shares.append((stopped_at or training.last_step) / training.last_step)
    return fmean(shares) if shares else 1.0


def _median(stopping: Stopping) -> Judge:
    finished: list[float] = []

    def judge(loss: float, steps: Sequence[int]) -> int | None:
        if len(finished) >= stopping.startup and loss > median(finished):
            return steps[0]
        bisect.insort(finished, loss)
        return None

    return judge


def _asha(stopping: Stopping) -> Judge:
    came: defaultdict[int, list[float]] = defaultdict(list)

    def judge(loss: float, steps: Sequence[int]) -> int | None:
        for step in steps:
            bisect.insort(came[step], loss)
            if bisect.bisect_left(came[step], loss) >= max(
                1, len(came[step]) // stopping.reduction
            ):
                return step
        return None

    return judge
