"""The loss falls (or rises) at each step to the next higher level."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from analysis.claims.forms.factor import DirectedClaim, Direction, LevelComparison, pair
from analysis.trials.selection import Value


class Monotone(DirectedClaim):
    """The loss is falling, or rising, at each step to the next higher level."""

    keys: ClassVar[tuple[str, ...]] = ("monotone",)

    monotone: Direction

    @property
    def direction(self) -> Direction:
        """How the loss should change with the level: falling or rising."""
        return self.monotone

    def comparisons(
        self, named: Sequence[Value], compared: Collection[Value], present: Collection[Value]
    ) -> Iterator[LevelComparison]:
        """Compare each level of the cell with the next."""
        for better, worse in pairwise(self.best_first(present)):
            yield pair(better, worse)
