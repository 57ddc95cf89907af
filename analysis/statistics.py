"""Intervals and tests of differences, by scipy and statsmodels.

Values are losses in nats per character; a difference is first minus second, so a negative one says
that the first is better. Samples are differences by seed; many are tested in the time of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
ROUNDING = 1e-9  # nats; what is closer together than this is the same
STEPS = np.sort([*(10.0**-d for d in range(9)), *(2.0**-k for k in range(1, 30))])[::-1]
RESAMPLES = 9_999  # of a bootstrap, or of a sign flip that has more than so many outcomes
FEWEST_FOR_BOOTSTRAP = 10  # values; of five, a bootstrap's 95 % intervals hold the mean in 85 %
SMALLEST = float(np.finfo(float).tiny)  # of a p-value: never 0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; NaN where there are too few values."""

    mean: float
    low: float
    high: float
    n: int


def resolution(values: npt.ArrayLike) -> float:
    """Return the coarsest step of which all values are multiples: what they were rounded to.

    Args:
        values: losses in nats per character.

    Returns:
        A power of ten or of two, at most 1; `ROUNDING` where it would be less.
    """
    x = _finite(values)
    for step in STEPS[
        _are_multiples(x[:1, None], STEPS)
    ]:  # few, so that all values are seldom read
        if _are_multiples(x[:, None], np.array([step])).all():
            return float(step)
    return ROUNDING


def _are_multiples(x: Floats, steps: Floats) -> npt.NDArray[np.bool_]:
    """Return for each of the steps (1-D) whether all values (n x 1) are multiples of it."""
    off = np.abs(x / steps - np.round(x / steps)) * steps
    multiples: npt.NDArray[np.bool_] = np.all(off <= ROUNDING / 10, axis=0)
    return multiples


def t_interval(values: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return Student's interval of a mean; of paired differences that of the paired t-test."""
    return t_intervals([values], confidence)[0]


def t_intervals(
    samples: Sequence[npt.ArrayLike],
    confidence: float = CONFIDENCE,
    rounding: Sequence[float] | None = None,
    floors: Sequence[float] | None = None,
) -> list[Interval]:
    """Return the `t_interval` of each of many samples.

    Args:
        samples: of values.
        confidence: of each interval by itself.
        rounding: how far a value of each may be off; None takes 0.
        floors: the least standard deviation of each; None takes 0.
    """
    n, mean, spread = moments(samples, floors)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = t_quantile((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    half = np.where(n > 1, half + (0.0 if rounding is None else np.asarray(rounding)), math.nan)
    columns = (mean, mean - half, mean + half)
    rows = zip(*(column.tolist() for column in columns), n.tolist(), strict=True)
    return [Interval(*row) for row in rows]


def prediction_interval(values: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval in which one more value would lie, if values are normal."""
    x = _finite(values)
    half = math.nan
    if len(x) > 1:
        quantile = t_quantile((1 + confidence) / 2, np.array(len(x) - 1))
        half = float(quantile * x.std(ddof=1) * math.sqrt(1 + 1 / len(x)))
    mean = _mean(x)
    return Interval(mean, mean - half, mean + half, len(x))


def bca_interval(values: npt.ArrayLike, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval of a mean (Efron 1987).

    NaN with fewer than ten values: resampling so few finds too little spread.
    """
    from scipy import stats  # imported late, here and below: it takes a second

    x = _finite(values)
    low = high = math.nan
    if len(x) >= FEWEST_FOR_BOOTSTRAP and np.ptp(x) <= ROUNDING:
        low = high = float(x[0])
    elif len(x) >= FEWEST_FOR_BOOTSTRAP:
        found = stats.bootstrap(
            (x,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        low, high = float(found.low), float(found.high)
    return Interval(_mean(x), low, high, len(x))


def below_zero(samples: Sequence[npt.ArrayLike], floors: Sequence[float] | None = None) -> Floats:
    """Return p-values of Student's one-sided tests, which reject if a mean is below zero.

    Args:
        samples: differences; with fewer than two the p-value is 1.
        floors: the least standard deviation of each, as of values that are rounded; None takes
            `ROUNDING`. So a p-value is never 0.
    """
    from scipy.special import stdtr  # the distribution function of Student's t

    n, mean, spread = moments(samples, floors)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_values = stdtr(n - 1, mean * np.sqrt(n) / np.maximum(spread, ROUNDING))
    return np.where(n > 1, np.maximum(p_values, SMALLEST), 1.0)


def sign_flip(differences: npt.ArrayLike, seed: int = 0) -> float:
    """Return the p-value of the permutation test that rejects if a mean is below zero.

    It takes differences that are as likely to have the other sign, and is exact over all patterns
    of signs while these are few. The smallest possible value is 2^-n, so five pairs are the fewest
    that can show anything at 5 %. It is 1 with fewer than two.
    """
    from scipy import stats

    x = _finite(differences)
    if len(x) < 2:
        return 1.0
    found = stats.permutation_test(
        (x,), np.mean, permutation_type="samples", alternative="less", n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed), vectorized=True,
    )  # fmt: skip
    return float(found.pvalue)


def normality(samples: Sequence[npt.ArrayLike]) -> float:
    """Return the p-value of the test that rejects if some samples are not normal.

    Shapiro and Wilk's test of each, which sees skew, gaps and single values far away, combined by
    Fisher's method. Samples that depend on one another, as those that share a trial, make it reject
    somewhat more often than its level says. Those of fewer than three values say nothing; it is 1
    where none says anything.
    """
    from scipy import stats

    tested = [x for x in map(_finite, samples) if len(x) > 2 and np.ptp(x) > ROUNDING]
    if not tested:
        return 1.0
    found = [max(float(stats.shapiro(x).pvalue), SMALLEST) for x in tested]
    return float(stats.combine_pvalues(found, method="fisher").pvalue)


def page_trend(values_by_block: npt.ArrayLike) -> float:
    """Return the p-value of Page's test, which rejects if values fall along the given order.

    Args:
        values_by_block: blocks x levels, the levels in their order.
    """
    from scipy import stats

    falling = -np.asarray(values_by_block, dtype=float)
    if falling.ndim != 2 or falling.shape[0] < 2 or falling.shape[1] < 3:
        return 1.0
    return float(stats.page_trend_test(falling).pvalue)


def holm(p_values: npt.ArrayLike) -> list[float]:
    """Return p-values adjusted for several tests, of which each is a statement (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    return (
        [float(p) for p in multipletests(p_values, method="holm")[1]] if np.size(p_values) else []
    )


def t_quantile(probability: float, degrees: npt.NDArray[np.int64] | Floats) -> Floats:
    """Return quantiles of Student's t, by its degrees of freedom; NaN where there are none."""
    if not (degrees > 0).any():
        return np.full(degrees.shape, math.nan)
    from scipy.special import stdtrit

    quantiles: Floats = stdtrit(degrees, probability)
    return quantiles


def moments(
    samples: Sequence[npt.ArrayLike], floors: Sequence[float] | None
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return the number of values, mean and standard deviation (at least its floor) of each."""
    values = [_finite(sample) for sample in samples]
    n = np.array([len(x) for x in values], dtype=int)
    mean = np.array([_mean(x) for x in values], dtype=float)
    spread = np.array([x.std(ddof=1) if len(x) > 1 else math.nan for x in values], dtype=float)
    return n, mean, spread if floors is None else np.maximum(spread, floors)


def _mean(x: Floats) -> float:
    return float(x.mean()) if len(x) else math.nan


def _finite(values: npt.ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float)
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite: a trial that failed has no place in a test")
    return x
