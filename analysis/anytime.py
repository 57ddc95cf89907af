"""Tests of differences that hold at every look: one may look after each seed, and stop at any time.

Each test has an e-value after every value of a sample. If its hypothesis is true, the largest of
them reaches 1 / error in no more than that share of samples, however many values follow (Ville's
inequality). So 1 / (largest e-value so far) is a p-value at any time, and the values of a mean that
are not rejected form a confidence sequence.

    t test           the mean is below zero, if values are normal, or symmetric and no wilder
    bounded test     the mean is below zero, if no value is above a bound: skewed noise as well
    order test       levels tend to be in a given order

The t test is that of Pérez-Ortiz, Lardy, de Heide and Grünwald (2024, "E-statistics, group
invariance and anytime-valid testing") and Wang and Ramdas (2024, "Anytime-valid t-tests and
confidence sequences for Gaussian means with unknown variance"): the ratio of the likelihoods of
what is left of the values when their scale is unknown. Here the effect, mean / standard deviation,
has a prior on the side of the claim: a mixture of two half-normal distributions, of which one is
for large effects, so that two values may decide. For each the ratio has a closed form with the
distribution function of Student's t; the average of both sides is the two-sided form of Wang and
Ramdas, and a mixture over all scales the default Bayes factor of Rouder et al. (2009). A larger
mean makes every e-value smaller, so the bound holds for all means above zero.

An e-value jumps past a limit, so Ville's inequality leaves a part of the error unused. For the t
test it is known which, as under the hypothesis the e-values depend on no parameter: their largest
reaches c with a probability of at most `OVERSHOOT` / c, for each c of at least 2. So those of at
least 2 are divided by `OVERSHOOT`, and the largest still reaches 1 / error in no more than this
share of samples. (Siegmund 1985, "Sequential analysis", chapter 8, on the overshoot; Fischer and
Ramdas 2024, "Improving the (approximate) sequential probability ratio test by avoiding overshoot".)
That probability is the mean of 1 / (e-value at the crossing) over samples whose effects are drawn
from the prior; tests/analysis/test_anytime.py holds the number against it.

The bounded test bets on the next value (Waudby-Smith and Ramdas 2024, "Estimating means of bounded
random variables by betting"). The order test weighs the orders of the levels by how well they
agree with the given one, against all orders being equally likely.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from analysis.statistics import SMALLEST, Floats

EFFECTS = np.array([2.5, 25.0])  # standard deviations of the prior of mean / standard deviation
WEIGHTS = np.array([0.7, 0.3])  # of these in the prior
OVERSHOOT = 0.64  # chance that the largest e-value of the t test reaches c, as a part of 1 / c
ODD = 0.01  # level at which values that spread as others do are taken not to
LEAST = 2.0  # c, from which on that holds
BETS = np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0])  # parts of the wealth per bound
TILTS = np.array([0.5, 1.0, 2.0, 4.0, 8.0])  # how far orders are weighed by their agreement
ENUMERATED = 7  # levels, of which all orders are looked at
TINY = 1e-280  # a tail that is less is bounded instead
STEPS = 60  # of a bisection
WIDEST = 1e3  # standard deviations from the mean: where a limit is given up


class Residuals(NamedTuple):
    """What other samples, with the same variance, tell of it; ... x 1, or numbers."""

    squares: npt.ArrayLike  # the sum of the squares around their means
    degrees: npt.ArrayLike  # its degrees of freedom


NOTHING = Residuals(0.0, 0.0)


def log_e_below_zero(
    values: npt.ArrayLike, floor: npt.ArrayLike = 0.0, others: Residuals = NOTHING
) -> Floats:
    """Return log e-values of the t test: large ones are evidence that the mean is below zero.

    Args:
        values: ... x values, in the order in which they count.
        floor: the least standard deviation, as of values that are rounded; ... x 1, or a number.
        others: residuals of other samples, which have the same variance. As long as the values
            spread plainly more, or there is only one, the smaller e-value counts of those with and
            without others.

    Returns:
        ... x values: the natural logarithm of the e-value after each of them, less the overshoot.
    """
    x = np.asarray(values, dtype=float)
    total = np.cumsum(x, axis=-1)
    squares = np.cumsum(x**2 + np.asarray(floor) ** 2, axis=-1)
    alone = _log_e(total, squares, 0.0)
    if others is NOTHING:
        return alone
    shared = _log_e(total, squares + np.asarray(others.squares), others.degrees)
    return np.where(_is_odd(total, squares, others), np.minimum(alone, shared), shared)


def _log_e(total: Floats, squares: Floats, further_degrees: npt.ArrayLike) -> Floats:
    """Return the log e-values of the prior, less the overshoot; see `log_e_of_prior`."""
    parts = [
        log_e_of_prior(total, squares, effect, further_degrees) + math.log(weight)
        for effect, weight in zip(EFFECTS, WEIGHTS, strict=True)
    ]
    log_e: Floats = np.logaddexp(*parts)
    return log_e - np.where(log_e >= math.log(LEAST), math.log(OVERSHOOT), 0.0)


def _is_odd(total: Floats, squares: Floats, others: Residuals) -> npt.NDArray[np.bool_]:
    """Return where values spread plainly more than others, by an F test; or where there is one."""
    n = np.arange(1, total.shape[-1] + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = (squares - total**2 / n) / (n - 1)
        ratio = own * np.asarray(others.degrees) / np.asarray(others.squares)
        p_odd = special.fdtrc(n - 1, others.degrees, ratio)
    return np.asarray((n == 1) | (p_odd < ODD))


def log_e_of_prior(
    total: Floats, squares: Floats, effect: float, further_degrees: npt.ArrayLike = 0.0
) -> Floats:
    """Return log e-values of the t test with a half-normal prior of mean / standard deviation.

    Args:
        total: ... x values: the sum of the values up to each.
        squares: the sum of their squares, and of those of residuals.
        effect: standard deviation of the prior.
        further_degrees: of freedom, of the residuals; ... x 1, or a number.
    """
    n = np.arange(1, total.shape[-1] + 1)
    degrees = n + np.asarray(further_degrees)
    prior = 1 / effect**2
    ratio = total / np.sqrt(np.maximum(squares, SMALLEST))
    rest = 1 - ratio**2 / (n + prior)
    t = -ratio * np.sqrt(degrees / ((n + prior) * rest))
    tail = special.stdtr(degrees, t)
    half = degrees / 2
    with np.errstate(divide="ignore"):
        log_tail = np.log(tail) - half * np.log(rest)
        # Far from the claim the tail is less than the least number. As d / (d + t^2) is `rest`, for
        # d degrees, a bound of it (from its series, a geometric one) has no power of `rest` left.
        bound = -0.5 * np.log(1 - rest) - np.log(half) - special.betaln(half, 0.5) - math.log(2)
    found: Floats = (
        0.5 * np.log(prior / (n + prior)) + math.log(2) + np.where(tail < TINY, bound, log_tail)
    )
    return found


def log_e_bounded(values: npt.ArrayLike, bound: npt.ArrayLike) -> Floats:
    """Return log e-values of the bounded test: large ones say that the mean is below zero.

    They average the wealth of several bets, each a fixed part of it.

    Args:
        values: ... x values, in the order in which they count.
        bound: that no value exceeds, above zero; ... x 1, or a number.

    Returns:
        ... x values; minus infinity from a value on that exceeds the bound.
    """
    x = np.asarray(values, dtype=float) / np.asarray(bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log1p(-np.multiply.outer(BETS, np.minimum(x, 1.0)))
        wealth = np.cumsum(growth, axis=-1)
    average = special.logsumexp(wealth, axis=0) - math.log(len(BETS))
    found: Floats = np.where(np.logical_or.accumulate(x > 1, axis=-1), -np.inf, average)
    return found


def log_e_order(losses: npt.ArrayLike) -> Floats:
    """Return log e-values of the order test: large ones say that losses fall in the given order.

    Args:
        losses: seeds x levels, at least two, in the order in which they should fall.

    Returns:
        The natural logarithm of the e-value after each seed.
    """
    ranks = stats.rankdata(-np.asarray(losses, dtype=float), axis=1)
    levels = ranks.shape[1]
    agreement = _agreement(ranks)[:, None] * TILTS  # seeds x tilts
    expected = _log_expected(levels)
    evidence: Floats = np.cumsum(agreement - expected, axis=0)
    found: Floats = special.logsumexp(evidence, axis=1) - math.log(len(TILTS))
    return found


def _agreement(ranks: Floats) -> Floats:
    """Return how well orders agree with 1, 2, 3, ...: Spearman's correlation, from -1 to 1."""
    middle = (ranks.shape[-1] + 1) / 2
    wanted = np.arange(1, ranks.shape[-1] + 1) - middle
    agreement: Floats = (ranks - middle) @ wanted / (wanted @ wanted)
    return agreement


@lru_cache
def _log_expected(levels: int) -> Floats:
    """Return the log of the mean of exp(tilt * agreement) over all orders, or a bound of it.

    Of many levels it is Hoeffding's bound for values from -1 to 1 with mean zero.
    """
    if levels > ENUMERATED:
        bounds: Floats = np.log(np.cosh(TILTS))
        return bounds
    orders = np.array(list(itertools.permutations(range(1, levels + 1))), dtype=float)
    tilted = _agreement(orders)[:, None] * TILTS
    expected: Floats = special.logsumexp(tilted, axis=0) - math.log(len(orders))
    return expected


def p_value(log_e: Floats) -> float:
    """Return the p-value that holds at any time: 1 / the largest e-value so far, at most 1."""
    return float(p_values(log_e[None])[0])


def p_values(log_e: Floats) -> Floats:
    """Return such a p-value of each row of log e-values."""
    return np.asarray(np.maximum(np.exp(-log_e.max(axis=-1, initial=0.0)), SMALLEST))


def upper_limit(
    values: npt.ArrayLike,
    error: float,
    floor: float = 0.0,
    bound: float | None = None,
    others: Residuals = NOTHING,
) -> float:
    """Return a value that the mean is below, at every look but for a share of samples.

    It is the limit by all values so far. Limits of earlier looks may be lower, and hold as well;
    but where values come out otherwise than at first, they can exclude what the values show now.

    Args:
        values: in the order in which they count.
        error: this share.
        floor: the least standard deviation, as of values that are rounded.
        bound: that no value exceeds, for the bounded test; None takes the t test.
        others: residuals of other samples with the same variance, for the t test.

    Returns:
        The limit in the unit of the values; infinity if they are too few for one.
    """
    x = np.asarray(values, dtype=float)

    def is_rejected(mean: float) -> bool:
        """Return whether a mean of at least so much is rejected."""
        if bound is None:
            log_e = log_e_below_zero(x - mean, floor, others)
        elif bound <= mean:
            return True
        else:
            log_e = log_e_bounded(x - mean, bound - mean)
        return bool(log_e[-1] >= -math.log(error))

    if not len(x):
        return math.inf
    low = float(x.mean())  # which the values themselves do not reject
    if bound is None:
        high = low + WIDEST * max(float(x.std()), floor, abs(low) / WIDEST, 1e-9)
    else:
        high = max(low, bound)
    if not is_rejected(high):
        return math.inf
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_rejected(middle) else (middle, high)
    return high
