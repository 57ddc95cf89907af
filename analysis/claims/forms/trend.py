"""The loss tends to fall (or rise) as the level goes up: single steps may go the other way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar

import numpy as np

from analysis.claims.contrast import Contrast
from analysis.claims.forms.factor import DirectedClaim, Direction, LevelComparison
from analysis.claims.power import Chance, Level, chance_of_trend
from analysis.claims.procedures import Procedure
from analysis.trials.selection import Value


class Trend(DirectedClaim):
    """The loss tends to fall, or rise, over all levels.

    The line through them has to fall by a t-test, and their ranks by Page's test.
    """

    keys: ClassVar[tuple[str, ...]] = ("trend",)
    is_simulated: ClassVar[bool] = True

    trend: Direction

    @property
    def direction(self) -> Direction:
        """How the loss should change with the level: falling or rising."""
        return self.trend

    def comparisons(
        self, named: Sequence[Value], compared: Collection[Value], present: Collection[Value]
    ) -> Iterator[LevelComparison]:
        """Compare the ends of a line through all levels of the cell, equally spaced."""
        levels = self.best_first(present)
        if len(levels) > 1:
            position = np.arange(len(levels)) - (len(levels) - 1) / 2
            weights = -position * (len(levels) - 1) / (position**2).sum()
            yield LevelComparison(f"{levels[0]} - {levels[-1]}, fitted", levels, weights)

    def further_p_value(self, contrast: Contrast, procedure: Procedure) -> float:
        """Return the p-value of the test of ranks, where there are more than two levels."""
        return 0.0 if contrast.levels is None else procedure.p_falling(contrast.levels)

    def chance(self, contrast: Contrast, seeds: int, level: Level) -> Chance:
        """Forecast the verdict on a contrast with `seeds` seeds, with Page's test."""
        if contrast.levels is None:
            return super().chance(contrast, seeds, level)
        (wanted,), (against,) = self.tests_for(contrast), self.tests_against(contrast)
        return chance_of_trend(contrast, wanted, against, seeds, level)
