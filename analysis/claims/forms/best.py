"""A level is better than every other; `best: any` finds the level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from analysis.claims.claim import NEGATED, listed_values
from analysis.claims.contrast import Contrast
from analysis.claims.forms.factor import LevelComparison, OpenClaim, ascending, pair
from analysis.text.shares import percent
from analysis.trials.selection import Value

ANY = "any"  # as `best`: whichever level it is; [any] is a level of that name


class Best(OpenClaim):
    """One level is better than every other: a named level, or any."""

    keys: ClassVar[tuple[str, ...]] = ("best",)

    best: Value | Annotated[list[Value], Field(min_length=1, max_length=1)]

    @model_validator(mode="after")
    def _best_is_compared(self) -> Best:
        if self.asks and self.holds == NEGATED:
            raise ValueError("`best: any` holds in every cell or on average")
        for level in self._named_best:
            if self.levels and str(level) not in map(str, self.levels):
                raise ValueError(f"the best level, {level}, is not among `levels`")
        return self

    @property
    def asks(self) -> bool:
        """True for `best: any`: the claim names no level."""
        return self.best == ANY

    @property
    def _named_best(self) -> list[Value]:
        return [] if self.asks else listed_values(self.best)

    @property
    def levels_by_key(self) -> Mapping[str, Sequence[Value]]:
        """The levels that the claim names, by the key that names them."""
        return {"best": self._named_best, **super().levels_by_key}

    def comparisons(
        self, named: Sequence[Value], compared: Collection[Value], present: Collection[Value]
    ) -> Iterator[LevelComparison]:
        """Compare the best level with every other; for `best: any`, each level in turn."""
        for best in ascending(compared) if self.asks else named[:1]:
            for other in ascending(present):
                if other != best:
                    yield pair(best, other, candidate=best if self.asks else None)

    def alternatives(self, contrasts: Sequence[Contrast]) -> list[list[Contrast]]:
        """Return the contrasts of each level, for `best: any`."""
        by_level = defaultdict(list)
        for contrast in contrasts if self.asks else ():
            by_level[contrast.candidate].append(contrast)
        return list(by_level.values())

    def statement(self, lowest_first: Sequence[Value | None], is_shown: bool) -> str:
        """Return the claim in words; for `best: any`, with the level that is best."""
        if not lowest_first:
            return self.claim
        level = f"{self.factor}={lowest_first[0]}"
        return f"{self.claim} ({level if is_shown else f'none is shown, lowest is {level}'})"

    def choice(self, lowest_first: Sequence[Value | None], confidence: float) -> str:
        """Return which levels are lowest, and that the tests allow for the choice."""
        if not lowest_first:
            return ""
        number = len(lowest_first)
        return (
            f"Of {number} levels of {self.factor}, {lowest_first[0]} has the lowest mean loss, then"
            f" {lowest_first[1]}. It was chosen by the losses that test it, so p-values for the"
            f" claim are times {number}, and the first interval holds {percent(confidence)} %."
        )
