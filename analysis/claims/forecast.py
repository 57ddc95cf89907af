"""Chances of a verdict with more seeds, assuming the effects and spreads observed so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from analysis.claims.arrivals import MOST_SEEDS, Arrivals
from analysis.claims.claim import NEGATED, Claim
from analysis.claims.contrast import Contrast
from analysis.claims.decisions import Decision
from analysis.claims.one_sided import ALPHA
from analysis.claims.power import Chance, Level, chance_of_difference
from analysis.claims.procedures import Anytime

WANTED = 0.8  # the chance of a verdict at which so many seeds are enough


@dataclass(frozen=True)
class Chances:
    """Probabilities of the verdicts on a claim."""

    supported: float
    refuted: float  # NOT SUPPORTED


@dataclass(frozen=True)
class Needed:
    """Fewest seeds that give a verdict with probability 0.8; None if 1,000 are too few."""

    to_show: int | None
    to_refute: int | None

    @property
    def is_refuted_first(self) -> bool:
        """True if fewer seeds would refute the claim than show it."""
        if self.to_show is None or self.to_refute is None:
            return False
        return self.to_refute < self.to_show


UNKNOWN = Needed(None, None)


def seeds_needed(claim: Claim, contrasts: Sequence[Contrast], decision: Decision) -> Needed:
    """Forecast how many seeds each configuration needs for a verdict.

    Args:
        claim: to be judged.
        contrasts: that decide.
        decision: on them as they are now.
    """
    if not contrasts or any(len(contrast.seeds) < 2 for contrast in contrasts):
        return UNKNOWN
    among = decision.among
    if isinstance(decision.procedure, Anytime):
        arrivals = Arrivals(claim, contrasts, decision.procedure, among)
        return Needed(arrivals.fewest(WANTED, True), arrivals.fewest(WANTED, False))
    least = 2 if decision.noise.is_good else _fewest_for_signs(claim, contrasts, among)

    def fewest(chance: Callable[[Chances], float]) -> int | None:
        return _fewest(least, lambda seeds: _is_likely(claim, contrasts, seeds, chance, among))

    return Needed(fewest(lambda found: found.supported), fewest(lambda found: found.refuted))


def chances(claim: Claim, contrasts: Sequence[Contrast], seeds: int, among: int = 1) -> Chances:
    """Forecast the verdicts with `seeds` seeds, if means and spreads are as measured.

    Contrasts are assumed to be independent, and the sign-flip test is ignored.

    Args:
        claim: to be judged.
        contrasts: that decide; at least two seeds each.
        seeds: at least two.
        among: number of such claims, as in `decide`.
    """
    level = _level(contrasts, among)
    return _together(claim, [claim.chance(contrast, seeds, level) for contrast in contrasts])


def _level(contrasts: Sequence[Contrast], among: int) -> Level:
    return Level(supports=ALPHA / among, refutes=ALPHA / len(contrasts))


def _together(claim: Claim, each: Sequence[Chance]) -> Chances:
    if claim.holds == NEGATED:
        all_hold = math.prod(chance.holds for chance in each)
        return Chances(1 - math.prod(1 - chance.fails for chance in each), all_hold)
    one_fails = 1 - math.prod(1 - chance.fails for chance in each)
    return Chances(math.prod(chance.holds_alone for chance in each), one_fails)


def _fewest(least: int, is_enough: Callable[[int], bool]) -> int | None:
    """Return the fewest seeds that are enough, from a lower limit on; None if 1,000 are too few."""
    too_few = least - 1
    for seeds in _numbers(least):
        if is_enough(seeds):
            while seeds - too_few > 1:
                middle = (too_few + seeds) // 2
                if is_enough(middle):
                    seeds = middle
                else:
                    too_few = middle
            return seeds
        too_few = seeds
    return None


def _is_likely(
    claim: Claim,
    contrasts: Sequence[Contrast],
    seeds: int,
    chance: Callable[[Chances], float],
    among: int,
) -> bool:
    """Return whether a chance is high enough; simulate only if the t-tests alone would be."""
    level = _level(contrasts, among)
    each = [
        chance_of_difference(c, claim.tests_for(c), claim.tests_against(c), seeds, level)
        for c in contrasts
    ]
    if chance(_together(claim, each)) < WANTED:
        return False
    return not claim.is_simulated or chance(chances(claim, contrasts, seeds, among)) >= WANTED


def _numbers(least: int) -> Iterator[int]:
    """Yield numbers of seeds: all small ones, then larger ones in steps of a twentieth."""
    seeds = least
    while seeds <= MOST_SEEDS:
        yield seeds
        seeds = max(seeds + 1, math.floor(seeds * 1.05))


def _fewest_for_signs(claim: Claim, contrasts: Sequence[Contrast], among: int) -> int:
    """Return the fewest seeds for the sign-flip test to reject at the level of the claim."""
    number = len(contrasts) if claim.holds == NEGATED else among
    tests = len(claim.tests_against(contrasts[0])) if claim.holds == NEGATED else 1
    return fewest_for_signs(number * tests)


def fewest_for_signs(tests: int) -> int:
    """Return the fewest seeds for the sign-flip test to reject at 5 %, corrected for several tests.

    With n seeds its smallest p-value is 2^-n.
    """
    return math.floor(math.log2(tests / ALPHA)) + 1
