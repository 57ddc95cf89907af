"""The trials of one selection are better than those of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from analysis.claims.claim import Claim, Selection, listed_values
from analysis.claims.claim_errors import ClaimError
from analysis.claims.configurations import (
    Configuration,
    check_seeds,
    label,
    seeds_of,
    select_configurations,
    varying,
)
from analysis.claims.contrast import DIFFERENCE, Comparison
from analysis.claims.pairing import pairs
from analysis.trials.table import Trials

Side = Annotated[Selection, Field(min_length=1)]


class Better(Claim):
    """Each configuration of `better` has a lower loss than its partners of `worse`."""

    keys: ClassVar[tuple[str, ...]] = ("better", "worse")

    better: Side
    worse: Side

    @property
    def compared(self) -> set[str]:
        """Settings in which the compared trials differ: those of the selections."""
        return {*self.better, *self.worse}

    @property
    def selections(self) -> dict[str, Selection]:
        """Selections of trials, by their key in the claim."""
        return {**super().selections, "better": self.better, "worse": self.worse}

    def compare(self, trials: Trials, found: Sequence[Configuration]) -> Iterator[Comparison]:
        """Compare configurations that agree otherwise, as far as possible in `despite` too."""
        ours, theirs = sides = self.sides(trials, found)
        if shared := _shared(ours, theirs):
            raise ClaimError(f"{shared} trials are both better and worse", "worse")
        for side in sides:
            check_seeds(side)
        every_seed = () if trials.plan_known else seeds_of([*ours, *theirs])
        what = f"{_in_words(self.better)} - {_in_words(self.worse)}"
        vary, others_vary = varying(ours), varying(theirs)
        for two in pairs(ours, theirs, self.compared, self.despite):
            cell = label({name: two.better.settings[name] for name in vary})
            if others_vary:
                against = label({name: two.worse.settings[name] for name in others_vary})
                cell = f"{cell} against {against}".strip()
            pair = two.better, two.worse
            yield Comparison(cell, what, DIFFERENCE, pair, every_seed, two.differs)

    def sides(self, trials: Trials, found: Sequence[Configuration]) -> list[list[Configuration]]:
        """Return the configurations of both selections."""
        return [select_configurations(trials, found, side) for side in (self.better, self.worse)]


def _shared(ours: Sequence[Configuration], theirs: Sequence[Configuration]) -> int:
    """Count the trials that two selections share."""
    runs = {id(each.settings): each.runs.keys() for each in ours}
    return sum(len(runs.get(id(each.settings), set()) & each.runs.keys()) for each in theirs)


def _in_words(selection: Selection) -> str:
    """Return the values of a selection, such as "attention rope|sinpe"."""
    return " ".join("|".join(map(str, listed_values(value))) for value in selection.values())
