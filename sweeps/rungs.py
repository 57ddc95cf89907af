"""Rungs: the steps at which a search may stop a configuration, and how much that saves.

Knows no Optuna.
"""

from __future__ import annotations

import bisect
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, median

from sweeps.cells import Cell
from sweeps.search_spec import Stopping
from trainables.config import TrainingConfig

SIMULATED = 2_000  # configurations, at least

Judge = Callable[[float, Sequence[int]], int | None]  # at which of its rungs a loss is stopped


def first_rung(stopping: Stopping, cell: Cell) -> int:
    """Return the step from which the pruner looks at the configurations of a study."""
    shortest = min(arm.defaults["training.max_steps"] for arm in cell.arms)
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
    stopping: Stopping, first_step: int, training: TrainingConfig, suggestions: int
) -> float:
    """Simulate what part of its steps a suggestion trains on average, from 0 to 1.

    Configurations come in random order and keep their ranks from rung to rung.

    Args:
        stopping: the rule of the pruner.
        first_step: as `first_rung` gives it.
        training: of the configurations.
        suggestions: how many the study makes.
    """
    steps = rungs(stopping, first_step, training)
    chance = random.Random(0)
    shares: list[float] = []
    while steps and len(shares) < SIMULATED:
        judge = _median(stopping) if stopping.rule == "median" else _asha(stopping)
        for _ in range(min(suggestions, SIMULATED)):
            stopped_at = judge(chance.random(), steps)
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
