"""What the differences of a claim know of each other's variance, for tests that hold at any look.

If all differences have the same variance, the test of one may use the residuals of the others. Its
statistic is what is left of its own values and of those residuals when their common scale is
unknown, and its e-value is the ratio of the likelihoods of that with and without an effect. Both
follow from the right Haar prior of the group that scales all differences and shifts each of the
others (Pérez-Ortiz, Lardy, de Heide and Grünwald 2024, as in `analysis.anytime`): residuals have no
mean in them, so their squares join the sum of squares, and their degrees of freedom the number of
values.

That has to hold although further seeds go to differences by what was seen of them, also of their
means, which are no part of the statistic. So of the others only the first `PAIRS` pairs count, and
nothing is decided before all differences have these. The e-values of a difference are then a
function of them and of its own pairs in the order of their seeds: whoever looks sees a beginning of
one sequence that no decision can change, and Ville's inequality holds for the whole of it.

A difference that spreads plainly more than the others gets no more evidence than it has by itself.
That makes e-values smaller, so it takes nothing from the above, and limits the harm where variances
differ: an F test sees a variance 16 times as large, and often one four times as large.

The noise of the differences that are used together has to be independent. Those that share a trial
are not, so none is used beside another that has a trial in common with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from analysis.anytime import Residuals
from analysis.claims.contrast import Contrast
from analysis.claims.one_sided import floor

PAIRS = 2  # of each other difference: the fewest that leave a residual


def residuals_of_others(contrasts: Sequence[Contrast]) -> Residuals | None:
    """Return what each contrast may use of the others; None while one has too few pairs.

    Squares are in the unit of the variance of the contrast that uses them: where lines go through
    different numbers of levels, the losses have the same variance, not the slopes.
    """
    if any(len(contrast.seeds) < PAIRS for contrast in contrasts):
        return None
    runs = [frozenset(contrast.run_ids) for contrast in contrasts]
    size = np.array([float((contrast.weights**2).sum()) for contrast in contrasts])
    squares = np.array([_squares(contrast) for contrast in contrasts]) / size
    used = [list(_apart(runs, index)) for index in range(len(contrasts))]
    of_others = size * [squares[others].sum() for others in used]
    degrees = np.array([(PAIRS - 1.0) * len(others) for others in used])
    return Residuals(of_others[:, None], degrees[:, None])


def _squares(contrast: Contrast) -> float:
    """Return the sum of squares of the first pairs around their mean, and those of rounding."""
    first = contrast.differences[:PAIRS]
    return float(((first - first.mean()) ** 2).sum()) + (PAIRS - 1) * floor(contrast) ** 2


def _apart(runs: Sequence[frozenset[str]], index: int) -> Iterator[int]:
    """Yield others that have no run in common with this contrast, nor with each other."""
    taken = set(runs[index])
    for other, its_runs in enumerate(runs):
        if taken.isdisjoint(its_runs):
            taken |= its_runs
            yield other
