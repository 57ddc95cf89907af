"""When tests that hold at every look will decide a claim: by trials that are simulated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.claims.claim import NEGATED, Claim
from analysis.claims.contrast import Contrast
from analysis.claims.one_sided import OneSided, floor
from analysis.claims.procedures import Anytime
from analysis.statistics import Floats

SWEEPS = 100  # that are simulated
MOST_SEEDS = 1_000  # of a configuration
NEVER = MOST_SEEDS + 1


class Arrivals:
    """The seeds with which each difference of a claim is decided, in simulated sweeps.

    The pairs so far are kept, and pairs are added that have the mean and the spread of these. Ranks
    of levels are left out, so a trend may take a little longer.
    """

    def __init__(
        self, claim: Claim, contrasts: Sequence[Contrast], procedure: Anytime, among: int
    ) -> None:
        """Simulate.

        Args:
            claim: to be judged.
            contrasts: that decide; at least two seeds each.
            procedure: the tests.
            among: number of claims of which this one is chosen, as in `decide`.
        """
        self._is_negated = claim.holds == NEGATED
        chance = np.random.default_rng(0)
        all_hold, one_fails = procedure.error / among, procedure.error / len(contrasts)
        holds, fails = [], []  # contrasts x sweeps: seeds
        for contrast in contrasts:
            wanted, against = claim.tests_for(contrast), claim.tests_against(contrast)
            drawn = _drawn(contrast, chance)
            some = [_crossing(contrast, drawn, test, all_hold, procedure) for test in wanted]
            holds.append(np.max(some, axis=0))
            level = one_fails / len(against)
            some = [_crossing(contrast, drawn, test, level, procedure) for test in against]
            fails.append(np.min(some, axis=0))
        self._all_hold, self._one_fails = np.max(holds, axis=0), np.min(fails, axis=0)

    def fewest(self, share: float, to_show: bool) -> int | None:
        """Return with how many seeds a share of the sweeps has the verdict; None if never.

        Args:
            share: from 0 to 1.
            to_show: whether the verdict is SUPPORTED, or NOT SUPPORTED.
        """
        seeds = self._all_hold if to_show != self._is_negated else self._one_fails
        found = int(np.quantile(seeds, share, method="higher"))
        return None if found == NEVER else found


def _drawn(contrast: Contrast, chance: np.random.Generator) -> Floats:
    """Return differences (sweeps x seeds) that begin with those of a contrast."""
    known = contrast.differences
    spread = max(float(known.std(ddof=1)), floor(contrast))
    further = chance.normal(contrast.mean, spread, (SWEEPS, max(0, MOST_SEEDS - len(known))))
    return np.hstack([np.tile(known, (SWEEPS, 1)), further])


def _crossing(
    contrast: Contrast, drawn: Floats, test: OneSided, level: float, procedure: Anytime
) -> Floats:
    """Return the number of seeds at which a test rejects in each sweep; NEVER if it does not."""
    found = np.full(len(drawn), float(NEVER))
    seeds = max(50, len(contrast.seeds))
    while (left := np.flatnonzero(found == NEVER)).size:  # most need few: not all are drawn
        log_e = procedure.log_e_values(drawn[left, :seeds], test, contrast)
        rejects = log_e >= -np.log(level)
        first = np.where(rejects.any(axis=1), rejects.argmax(axis=1) + 1, NEVER)
        found[left] = first
        if seeds >= MOST_SEEDS:
            break
        seeds = min(MOST_SEEDS, seeds * 5)
    return found
