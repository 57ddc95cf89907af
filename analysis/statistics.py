"""Differences with their uncertainty, by scipy and statsmodels. Knows neither sweeps nor MLflow.

Values are losses in nats per character; a difference is first minus second, so a negative one says
that the first is better. `alternative` is of scipy: "less" asks whether the mean is below zero.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95
MOST_SEEDS = 1_000
ROUNDING = 1e-9  # nats; what is closer together than this is the same
RESAMPLES = 9_999  # of a bootstrap, or of a sign flip that has more than so many outcomes

Floats = npt.NDArray[np.float64]
Alternative = Literal["less", "greater", "two-sided"]


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie; NaN for what there are too few values to tell."""

    mean: float
    low: float
    high: float
    n: int


def resolution(values: npt.ArrayLike) -> float:
    """The coarsest step of which all values are multiples: what they were rounded to.

    Args:
        values: losses in nats per character.

    Returns:
        A power of ten or of two, at most 1; `ROUNDING` where it would be less.
    """
    x = _finite(values)
    steps = sorted([*(10.0**-d for d in range(9)), *(2.0**-k for k in range(1, 30))], reverse=True)
    for step in steps:
        if (np.abs(x / step - np.round(x / step)) * step <= ROUNDING / 10).all():
            return step
    return ROUNDING


def t_interval(values: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of a mean; of paired differences, the interval of the paired t-test."""
    return t_intervals([values], confidence)[0]


def t_intervals(samples: Sequence[npt.ArrayLike], confidence: float = CONFIDENCE) -> list[Interval]:
    """`t_interval` of each of many samples."""
    found = [Interval(_mean(x), math.nan, math.nan, len(x)) for x in map(_finite, samples)]
    for rows, x in _by_size(samples):
        flat = _is_flat(x)
        bounds = np.stack([x[:, 0], x[:, 0]])
        if not flat.all():
            bounds[:, ~flat] = stats.ttest_1samp(x[~flat], 0.0, axis=1).confidence_interval(
                confidence
            )
        for row, below, above in zip(rows, *bounds, strict=True):
            found[row] = replace(found[row], low=float(below), high=float(above))
    return found


def prediction_interval(values: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Where one more value like these would lie, around their mean (normal values)."""
    x = _finite(values)
    half = math.nan
    if len(x) > 1:
        quantile = stats.t.ppf((1 + confidence) / 2, len(x) - 1)
        half = float(quantile * x.std(ddof=1) * math.sqrt(1 + 1 / len(x)))
    mean = _mean(x)
    return Interval(mean, mean - half, mean + half, len(x))


def bca_interval(values: npt.ArrayLike, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of a mean (Efron 1987)."""
    x = _finite(values)
    low = high = math.nan
    if len(x) > 1 and _is_flat(x[None])[0]:
        low = high = float(x[0])
    elif len(x) > 1:
        found = stats.bootstrap(
            (x,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        low, high = float(found.low), float(found.high)
    return Interval(_mean(x), low, high, len(x))


def paired_t(differences: npt.ArrayLike, alternative: Alternative = "two-sided") -> float:
    """The p-value of Student's test that the mean difference is zero; 1 with fewer than two."""
    return float(paired_ts([differences], alternative)[0])


def paired_ts(samples: Sequence[npt.ArrayLike], alternative: Alternative = "two-sided") -> Floats:
    """`paired_t` of each of many samples."""
    p_values = np.ones(len(samples))
    for rows, x in _by_size(samples):
        flat = _is_flat(x)
        found = np.array([_by_direction(value, alternative) for value in x[:, 0]])
        if not flat.all():
            tested = stats.ttest_1samp(x[~flat], 0.0, axis=1, alternative=alternative)
            found[~flat] = tested.pvalue
        p_values[rows] = found
    return p_values


def sign_flip(
    differences: npt.ArrayLike, alternative: Alternative = "two-sided", seed: int = 0
) -> float:
    """The p-value of the permutation test that differences are symmetric about zero.

    Exact over all sign patterns while these are few; the smallest possible value is 2^-n one-sided,
    so five pairs are the fewest that can show anything at 5 %. It is 1 with fewer than two.
    """
    x = _finite(differences)
    if len(x) < 2:
        return 1.0
    found = stats.permutation_test(
        (x,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed), vectorized=True,
    )  # fmt: skip
    return float(found.pvalue)


def equivalence(samples: Sequence[npt.ArrayLike], margin: float) -> Floats:
    """The p-values of two one-sided t-tests that a mean difference lies within the margin.

    Schuirmann 1987; below the level, the two may be called equal as far as the margin goes.
    """
    above = paired_ts([_finite(x) + margin for x in samples], "greater")
    below = paired_ts([_finite(x) - margin for x in samples], "less")
    return np.maximum(above, below)


def page_trend(values_by_block: npt.ArrayLike) -> float:
    """The p-value of Page's test that values fall along an order that was stated beforehand.

    Args:
        values_by_block: blocks x levels, the levels in their order.
    """
    falling = -np.asarray(values_by_block, dtype=float)
    if falling.ndim != 2 or falling.shape[0] < 2 or falling.shape[1] < 3:
        return 1.0
    return float(stats.page_trend_test(falling).pvalue)


def holm(p_values: npt.ArrayLike) -> list[float]:
    """Adjusted p-values for statements about single ones of several (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    return (
        [float(p) for p in multipletests(p_values, method="holm")[1]] if np.size(p_values) else []
    )


def power(samples: Sequence[npt.ArrayLike], n: int, alpha: float, any_of: bool = False) -> float:
    """The chance that one-sided paired t-tests show a mean below zero with n pairs each.

    Were the effects and the spreads as in the samples, and the samples independent of each other.

    Args:
        samples: differences, at least two each.
        n: pairs, at least two.
        alpha: the level of the tests.
        any_of: whether one of them is enough, tested at alpha / their number; else all are wanted.
    """
    from statsmodels.stats.power import TTestPower

    level = alpha / len(samples) if any_of else alpha
    chances = np.empty(len(samples))
    for rows, x in _by_size(samples):
        flat = _is_flat(x)
        effects = -x.mean(axis=1) / np.where(flat, 1, x.std(axis=1, ddof=1))
        found = TTestPower().power(effects, n, level, alternative="larger")
        # scipy's noncentral t is NaN for some effects that are far beyond doubt.
        found = np.where(np.isnan(found), effects > 0, found)
        chances[rows] = np.where(flat, x[:, 0] < -ROUNDING, found)
    return float(1 - np.prod(1 - chances) if any_of else np.prod(chances))


def seeds_needed(
    samples: Sequence[npt.ArrayLike], alpha: float, any_of: bool = False, wanted: float = 0.8
) -> int | None:
    """The fewest pairs, 2 to 1,000, with which `power` is as wanted.

    Returns:
        None where a sample has fewer than two values, or more pairs would be needed.
    """
    if any(np.size(sample) < 2 for sample in samples):
        return None
    low, high = 1, 2  # so many are too few; so many may do
    while power(samples, high, alpha, any_of) < wanted:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(samples, middle, alpha, any_of) < wanted:
            low = middle
        else:
            high = middle
    return high if high <= MOST_SEEDS else None


def _is_flat(x: Floats) -> npt.NDArray[np.bool_]:
    """Which samples (sample, value) have no spread but rounding: their direction alone speaks."""
    flat: npt.NDArray[np.bool_] = np.ptp(x, axis=1) <= ROUNDING
    return flat


def _by_direction(difference: float, alternative: Alternative) -> float:
    if abs(difference) <= ROUNDING:
        return 1.0
    agrees = {"less": difference < 0, "greater": difference > 0, "two-sided": True}
    return 0.0 if agrees[alternative] else 1.0


def _by_size(samples: Sequence[npt.ArrayLike]) -> Iterator[tuple[list[int], Floats]]:
    """Samples of two or more values, those of a size together: which they are, and (sample, value).

    The libraries take many samples in the time of one.
    """
    sizes = defaultdict(list)
    for row, sample in enumerate(samples):
        sizes[np.size(sample)].append(row)
    for size, rows in sizes.items():
        if size > 1:
            yield rows, np.stack([_finite(samples[row]) for row in rows])


def _mean(x: Floats) -> float:
    return float(x.mean()) if len(x) else math.nan


def _finite(values: npt.ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float)
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite: a trial that failed has no place in a test")
    return x
