"""Levels that differ by less than the margin."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import ClassVar

from analysis.claims.claim_errors import ClaimError
from analysis.claims.contrast import Contrast
from analysis.claims.forms.factor import FactorClaim, LevelComparison, Levels, pair
from analysis.claims.one_sided import OneSided, beyond, within
from analysis.trials.selection import Value


class Equal(FactorClaim):
    """All pairs of levels differ by less than the margin."""

    keys: ClassVar[tuple[str, ...]] = ("equal",)

    equal: Levels

    @property
    def levels_by_key(self) -> Mapping[str, Sequence[Value]]:
        """The levels that the claim names, by the key that names them."""
        return {"equal": self.equal}

    def comparisons(
        self, named: Sequence[Value], compared: Collection[Value], present: Collection[Value]
    ) -> Iterator[LevelComparison]:
        """Compare all pairs of levels."""
        for first, second in combinations(named, 2):
            yield pair(first, second)

    def check(self, contrasts: Sequence[Contrast]) -> None:
        """Refuse losses that are not known as finely as the margin.

        Raises:
            ClaimError: the margin is no larger than the rounding of the losses.
        """
        coarsest = max(contrasts, key=lambda contrast: contrast.rounding, default=None)
        if coarsest and coarsest.rounding >= self.margin:
            raise ClaimError(
                f"the losses are rounded to {coarsest.resolution:g}, so nothing can be said of"
                f" equality within {self.margin:g}; give them with more digits, or a larger margin",
                "equal",
            )

    def tests_for(self, contrast: Contrast) -> list[OneSided]:
        """Return the two tests that show a difference to be within the margin."""
        return within(self.margin, contrast)

    def tests_against(self, contrast: Contrast) -> list[OneSided]:
        """Return the two tests of which one shows a difference to be beyond the margin."""
        return beyond(self.margin, contrast)

    def distance(self, contrast: Contrast) -> float:
        """Return by how much a mean difference is beyond the margin; negative within."""
        return abs(contrast.mean) - self.margin

    @property
    def favoured(self) -> str:
        """Small differences support the claim."""
        return "small"
