"""Levels from best to worst, each better than the next."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

from analysis.claims.forms.factor import FactorClaim, LevelComparison, Levels, pair
from analysis.trials.selection import Value


class Order(FactorClaim):
    """Each level is better than the next."""

    keys: ClassVar[tuple[str, ...]] = ("order",)

    order: Levels  # best first

    @property
    def levels_by_key(self) -> Mapping[str, Sequence[Value]]:
        """The levels that the claim names, by the key that names them."""
        return {"order": self.order}

    def comparisons(
        self, named: Sequence[Value], compared: Collection[Value], present: Collection[Value]
    ) -> Iterator[LevelComparison]:
        """Compare each level with the next."""
        for better, worse in pairwise(named):
            yield pair(better, worse)
