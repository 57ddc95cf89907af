"""The trials of one selection are better than those of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar

import pandas as pd
from pydantic import Field

from analysis.claims.claim import Claim, Selection, listed_values
from analysis.claims.claim_errors import ClaimError
from analysis.claims.contrast import DIFFERENCE, Contrast, measured, resolution_of
from analysis.claims.pairing import group_by_seed, label, pairs, varying
from analysis.trials.selection import select
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

    def contrasts(self, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
        """Compare configurations that agree otherwise, as far as possible in `despite` too."""
        sides = better, worse = select(table, self.better), select(table, self.worse)
        if shared := better.index.intersection(worse.index).size:
            raise ClaimError(f"{shared} trials are both better and worse", "worse")
        every_seed = () if trials.plan_known else pd.concat(sides)["seed"].unique()
        coarsest = resolution_of(*sides)
        what = f"{_in_words(self.better)} - {_in_words(self.worse)}"
        ours, theirs = (group_by_seed(trials, side) for side in sides)
        vary, others_vary = varying(ours), varying(theirs)
        for two in pairs(ours, theirs, self.compared, self.despite):
            cell = label({name: two.better.settings[name] for name in vary})
            if others_vary:
                against = label({name: two.worse.settings[name] for name in others_vary})
                cell = f"{cell} against {against}".strip()
            found = measured(cell, what, [two.better, two.worse], DIFFERENCE, every_seed)
            yield replace(found, differs=(*two.differs, *found.differs), resolution=coarsest)


def _in_words(selection: Selection) -> str:
    """Return the values of a selection, such as "attention rope|sinpe"."""
    return " ".join("|".join(map(str, listed_values(value))) for value in selection.values())
