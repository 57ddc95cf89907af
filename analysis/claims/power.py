"""Chances that a contrast supports or contradicts a claim, given its mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from analysis.claims.contrast import Contrast
from analysis.claims.one_sided import OneSided, floor
from analysis.statistics import Floats, below_zero, page_trend

SPREADS = 200  # quantiles of a sample's standard deviation
SWEEPS = 1_000  # that are simulated for a trend, unless they are more than so many
DRAWN = 200_000  # pairs


@dataclass(frozen=True)
class Level:
    """Levels of the tests of one contrast."""

    supports: float  # of each test that has to reject
    refutes: float  # of the tests together, of which one has to reject


@dataclass(frozen=True)
class Chance:
    """Chances that a contrast supports the claim, contradicts it, or only supports it."""

    holds: float
    fails: float
    holds_alone: float


def chance_of_difference(
    contrast: Contrast,
    wanted: Sequence[OneSided],
    against: Sequence[OneSided],
    seeds: int,
    level: Level,
) -> Chance:
    """Forecast t-tests, by integration over the standard deviation that a sample may have.

    Args:
        contrast: with at least two seeds.
        wanted: the tests that all have to reject to support the claim.
        against: the tests of which one has to reject to contradict it.
        seeds: of the sample that is forecast; at least two.
        level: of the tests.
    """
    mean = contrast.mean
    spread = max(float(contrast.differences.std(ddof=1)), floor(contrast)) / seeds**0.5
    errors = spread * _spreads(seeds)
    low, high = _where_all(wanted, True, errors, level.supports, seeds)
    above, below = _where_all(against, False, errors, level.refutes / len(against), seeds)

    def chance(start: Floats, end: Floats) -> float:
        inside = special.ndtr((end - mean) / spread) - special.ndtr((start - mean) / spread)
        return float(np.maximum(inside, 0).mean())

    alone = chance(np.maximum(low, above), np.minimum(high, below))
    return Chance(chance(low, high), 1 - chance(above, below), alone)


@lru_cache
def _spreads(seeds: int) -> Floats:
    """Quantiles of the standard deviation of a sample, as parts of the true one."""
    quantiles = (np.arange(SPREADS) + 0.5) / SPREADS
    return np.asarray(np.sqrt(stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1)))


@lru_cache
def _quantile(level: float, seeds: int) -> float:
    """Return the t statistic beyond which a test rejects."""
    return float(stats.t.ppf(1 - level, seeds - 1))


def _where_all(
    tests: Sequence[OneSided], reject: bool, errors: Floats, level: float, seeds: int
) -> tuple[Floats, Floats]:
    """Return between which means all tests reject, or none does, for each standard error."""
    t = _quantile(level, seeds)
    low, high = np.full(len(errors), -np.inf), np.full(len(errors), np.inf)
    for test in tests:
        edge = -test.sign * (test.offset + t * errors)
        if (test.sign > 0) == reject:
            high = np.minimum(high, edge)
        else:
            low = np.maximum(low, edge)
    return low, high


def chance_of_trend(
    contrast: Contrast, wanted: OneSided, against: OneSided, seeds: int, level: Level
) -> Chance:
    """Forecast a trend by simulated sweeps, as Page's test has no formula.

    Args:
        contrast: through more than two levels.
        wanted: the test of the line through them that has to reject to support the claim.
        against: the test that has to reject to contradict it.
        seeds: of each simulated sweep.
        level: of the tests.
    """
    generator = np.random.default_rng(0)
    centre = contrast.losses.mean(axis=0)
    residuals = (contrast.losses - centre) / (len(contrast.losses) - 1) ** 0.5
    drawn = generator.standard_normal((min(SWEEPS, DRAWN // seeds), seeds, len(residuals)))
    losses = centre + drawn @ residuals
    samples = losses @ contrast.weights
    floors = [floor(contrast)] * len(samples)
    line = below_zero(list(wanted.sample(samples)), floors) < level.supports
    fails = below_zero(list(against.sample(samples)), floors) < level.refutes
    falls = _falling(losses[:, :, ::-1]) < level.supports
    holds = line & falls
    return Chance(float(holds.mean()), float(fails.mean()), float((holds & ~fails).mean()))


def _falling(losses: npt.NDArray[np.float64]) -> Floats:
    """Return the p-values of Page's test of many sweeps (sweep, seed, level)."""
    ranks = stats.rankdata(-losses, axis=2)
    statistic = ranks.sum(axis=1) @ np.arange(1, losses.shape[2] + 1)
    _, first, which = np.unique(statistic, return_index=True, return_inverse=True)  # few differ
    return np.array([page_trend(losses[i]) for i in first])[which]
