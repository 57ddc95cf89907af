"""What a verdict would be with more seeds, were effects and spreads as they look now."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from analysis.claims.claim import Claim
from analysis.claims.contrasts import Contrast
from analysis.claims.decisions import (
    ALPHA,
    NEGATED,
    Decision,
    OneSided,
    floor,
    tests_against,
    tests_for,
)
from analysis.statistics import Floats, below_zero, page_trend

WANTED = 0.8  # the chance of a verdict at which so many seeds are enough
MOST_SEEDS = 1_000
SPREADS = 200  # quantiles of a sample's standard deviation
SWEEPS = 1_000  # that are simulated for a trend, unless they are more than so many
DRAWN = 200_000  # pairs


@dataclass(frozen=True)
class Chances:
    """Of the verdicts on a claim."""

    supported: float
    refuted: float  # NOT SUPPORTED


@dataclass(frozen=True)
class Needed:
    """Fewest seeds that give a verdict with probability 0.8; None if 1,000 are too few."""

    to_show: int | None
    to_refute: int | None


UNKNOWN = Needed(None, None)


def seeds_needed(claim: Claim, contrasts: Sequence[Contrast], decision: Decision) -> Needed:
    """How many seeds each configuration would need for a verdict.

    Args:
        claim: what is said.
        contrasts: that decide.
        decision: on them as they are now.
    """
    if not contrasts or any(len(contrast.seeds) < 2 for contrast in contrasts):
        return UNKNOWN
    among = decision.among
    least = 2 if decision.noise.is_good else _fewest_for_signs(claim, contrasts, among)
    return Needed(
        *(_fewest(claim, contrasts, least, verdict, among) for verdict in ("supported", "refuted"))
    )


def chances(claim: Claim, contrasts: Sequence[Contrast], seeds: int, among: int = 1) -> Chances:
    """Probabilities of the verdicts with so many seeds, if means and spreads are as measured.

    Contrasts are taken for independent.

    That the sign-flip test may have to agree is not part of it.

    Args:
        claim: what is said.
        contrasts: that decide; at least two seeds each.
        seeds: at least two.
        among: of how many such claims this one counts, as in `decide`.
    """
    each = [
        _of_trend(claim, contrast, seeds, len(contrasts))
        if contrast.levels is not None
        else _of_difference(claim, contrast, seeds, len(contrasts), among)
        for contrast in contrasts
    ]
    return _together(claim, each)


@dataclass(frozen=True)
class _One:
    """Chances that a contrast supports the claim, contradicts it, or does only the former."""

    holds: float
    fails: float
    holds_alone: float


def _together(claim: Claim, each: Sequence[_One]) -> Chances:
    if claim.holds == NEGATED:
        all_hold = math.prod(one.holds for one in each)
        return Chances(1 - math.prod(1 - one.fails for one in each), all_hold)
    one_fails = 1 - math.prod(1 - one.fails for one in each)
    return Chances(math.prod(one.holds_alone for one in each), one_fails)


def _of_difference(claim: Claim, contrast: Contrast, seeds: int, number: int, among: int) -> _One:
    """By integration over the standard deviation that a sample may have."""
    mean = contrast.mean
    spread = max(float(contrast.differences.std(ddof=1)), floor(contrast)) / seeds**0.5
    errors = spread * _spreads(seeds)
    wanted, against = tests_for(claim, contrast), tests_against(claim, contrast)
    low, high = _where_all(wanted, True, errors, ALPHA / among, seeds)
    level = ALPHA / (number * len(against))
    above, below = _where_all(against, False, errors, level, seeds)

    def chance(start: Floats, end: Floats) -> float:
        inside = special.ndtr((end - mean) / spread) - special.ndtr((start - mean) / spread)
        return float(np.maximum(inside, 0).mean())

    alone = chance(np.maximum(low, above), np.minimum(high, below))
    return _One(chance(low, high), 1 - chance(above, below), alone)


@lru_cache
def _spreads(seeds: int) -> Floats:
    """Quantiles of the standard deviation of a sample, as parts of the true one."""
    quantiles = (np.arange(SPREADS) + 0.5) / SPREADS
    return np.asarray(np.sqrt(stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1)))


@lru_cache
def _quantile(level: float, seeds: int) -> float:
    """What the t statistic has to be beyond."""
    return float(stats.t.ppf(1 - level, seeds - 1))


def _where_all(
    tests: Sequence[OneSided], reject: bool, errors: Floats, level: float, seeds: int
) -> tuple[Floats, Floats]:
    """Between which means all tests reject, or none does, by the standard error."""
    t = _quantile(level, seeds)
    low, high = np.full(len(errors), -np.inf), np.full(len(errors), np.inf)
    for test in tests:
        edge = -test.sign * (test.offset + t * errors)
        if (test.sign > 0) == reject:
            high = np.minimum(high, edge)
        else:
            low = np.maximum(low, edge)
    return low, high


def _of_trend(claim: Claim, contrast: Contrast, seeds: int, number: int) -> _One:
    """By simulated sweeps, as Page's test has no formula."""
    levels = contrast.levels
    assert levels is not None
    chance = np.random.default_rng(0)
    centre = contrast.losses.mean(axis=0)
    residuals = (contrast.losses - centre) / (len(levels) - 1) ** 0.5
    drawn = chance.standard_normal((min(SWEEPS, DRAWN // seeds), seeds, len(residuals)))
    losses = centre + drawn @ residuals
    samples = losses @ contrast.weights
    floors = [floor(contrast)] * len(samples)
    (wanted,), (against,) = tests_for(claim, contrast), tests_against(claim, contrast)
    line = below_zero(list(wanted.sample(samples)), floors) < ALPHA
    fails = below_zero(list(against.sample(samples)), floors) < ALPHA / number
    falls = _falling(losses[:, :, ::-1]) < ALPHA
    holds = line & falls
    return _One(float(holds.mean()), float(fails.mean()), float((holds & ~fails).mean()))


def _falling(losses: npt.NDArray[np.float64]) -> Floats:
    """The p-values of Page's test of many sweeps (sweep, seed, level), few of which differ."""
    ranks = stats.rankdata(-losses, axis=2)
    statistic = ranks.sum(axis=1) @ np.arange(1, losses.shape[2] + 1)
    _, first, which = np.unique(statistic, return_index=True, return_inverse=True)
    return np.array([page_trend(losses[i]) for i in first])[which]


def _fewest(
    claim: Claim, contrasts: Sequence[Contrast], least: int, verdict: str, among: int
) -> int | None:
    """The fewest seeds that make a verdict likely enough: "supported" or "refuted"."""
    too_few = least - 1
    for seeds in _numbers(least):
        if _is_likely(claim, contrasts, seeds, verdict, among):
            while seeds - too_few > 1:
                middle = (too_few + seeds) // 2
                if _is_likely(claim, contrasts, middle, verdict, among):
                    seeds = middle
                else:
                    too_few = middle
            return seeds
        too_few = seeds
    return None


def _is_likely(
    claim: Claim, contrasts: Sequence[Contrast], seeds: int, verdict: str, among: int
) -> bool:
    """Whether the chance is as wanted; simulated only where a trend's line alone would do."""
    number = len(contrasts)
    each = [_of_difference(claim, contrast, seeds, number, among) for contrast in contrasts]
    lines = _together(claim, each)
    if getattr(lines, verdict) < WANTED:
        return False
    if all(contrast.levels is None for contrast in contrasts):
        return True
    return bool(getattr(chances(claim, contrasts, seeds, among), verdict) >= WANTED)


def _numbers(least: int) -> Iterator[int]:
    """Numbers of seeds, the small ones all, the large ones a twentieth apart."""
    seeds = least
    while seeds <= MOST_SEEDS:
        yield seeds
        seeds = max(seeds + 1, math.floor(seeds * 1.05))


def _fewest_for_signs(claim: Claim, contrasts: Sequence[Contrast], among: int) -> int:
    """Seeds with which the sign-flip test can reject at the level that the claim needs."""
    number = len(contrasts) if claim.holds == NEGATED else among
    tests = len(tests_against(claim, contrasts[0])) if claim.holds == NEGATED else 1
    return fewest_for_signs(number * tests)


def fewest_for_signs(tests: int) -> int:
    """Seeds with which the sign-flip test can reject at 5 %, corrected for so many tests."""
    return math.floor(math.log2(tests / ALPHA)) + 1
