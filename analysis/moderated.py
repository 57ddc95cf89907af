"""One-sided t-tests of several cells that share what they know about the variance (Smyth 2004).

With five seeds, the variance of a cell is known from four degrees of freedom. If the variances of
all cells come from one distribution, each cell also knows something about the others. The true
variances are taken as draws of a scaled inverse chi-square distribution, which the sample variances
determine; it counts in the test of each cell like further degrees of freedom.

The level of a test holds for variances that come from such a distribution, and on average over the
cells. A cell whose variance is far above all others is taken for chance, and tested too boldly. So
a cell that is plainly no part of the others (an F test against the distribution of the others, at
5 % for all cells together) is tested by itself, and adds nothing to the distribution. Where one of
twelve cells has 4 or 16 times the variance of the others, and no difference, its test at 5 %
rejects in 11 or 7 % of sweeps; without that rule it would be 14 % in both. More is measured by
`python -m benchmarks moderated`.

Source: G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 6.2. To
leave out what does not belong is in the spirit of Phipson et al., "Robust hyperparameter estimation
protects against hypervariable genes", Ann. Appl. Stat. 10(2), 2016, but simpler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.statistics import ROUNDING, SMALLEST, Floats, Interval, moments, t_quantile

NEWTON_STEPS = 50  # at most; Smyth's start needs fewer than ten
ODD = 0.05  # level at which some cell is found not to belong to the others, though all do
CLOSE = 1e-8  # relative step at which Newton's method ends


@dataclass(frozen=True)
class VariancePrior:
    """The distribution of the true variances of cells: degrees * spread^2 / chi-square(degrees).

    Degrees of infinity say that all cells have the same variance, and 0 that nothing is known; the
    spread is NaN then.
    """

    degrees: float  # d0: how many degrees of freedom it adds to those of a cell
    spread: float  # s0 in nats: the standard deviation of a typical cell


NOTHING_KNOWN = VariancePrior(0.0, math.nan)


@dataclass(frozen=True)
class Moderated:
    """The tests of all cells, with the distribution of variances that they share."""

    p_values: Floats
    prior: VariancePrior
    odd: npt.NDArray[np.bool_]  # cells that are tested by themselves: their variance is too large


def moderated_below_zero(
    samples: Sequence[npt.ArrayLike], floors: Sequence[float] | None = None
) -> Moderated:
    """Test whether means are below zero, with variances borrowed across the samples.

    The degrees of freedom of a test are at most those of all samples together, as in `limma`.

    Args:
        samples: differences in nats, one sample for each cell; with fewer than two values the
            p-value is 1, and with fewer than two such samples nothing can be borrowed.
        floors: the least standard deviation of each, as in `below_zero`; None takes `ROUNDING`.

    Raises:
        ValueError: a value is not finite.
    """
    n, mean, spread = moments(samples, floors)
    found = _shared(n, np.maximum(spread, ROUNDING))
    tested = n > 1
    p_values = np.ones(len(n))
    p_values[tested] = _p_values(n[tested], mean[tested], *found.of(tested))
    return Moderated(p_values, found.prior, found.odd)


@dataclass(frozen=True)
class _Shared:
    """The variance and the degrees of freedom with which each sample is tested."""

    variance: Floats
    degrees: Floats
    prior: VariancePrior
    odd: npt.NDArray[np.bool_]

    def of(self, chosen: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return those of some samples."""
        return self.variance[chosen], self.degrees[chosen]


def _shared(n: npt.NDArray[np.int64], spread: Floats) -> _Shared:
    """Share what samples of at least two values know of their variances, but for odd ones."""
    odd, tested = np.zeros(len(n), dtype=bool), n > 1
    odd[tested] = _too_large(spread[tested] ** 2, n[tested] - 1)
    shared = tested & ~odd
    prior = fit_prior(spread[shared] ** 2, n[shared] - 1)
    most = float((n[shared] - 1).sum())
    variance, degrees = spread**2, (n - 1).astype(float)
    variance[shared], degrees[shared] = _borrowed(n[shared], spread[shared], prior, most)
    return _Shared(variance, degrees, prior, odd)


def _too_large(variances: Floats, degrees: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which variances are too large for the distribution of the others.

    If a variance comes from it, s^2 / s0^2 has an F distribution with d and d0 degrees of freedom.
    """
    from scipy.special import fdtrc  # the upper tail of the F distribution

    cells = len(variances)
    p_values = np.ones(cells)
    for cell in np.flatnonzero(variances > np.median(variances)) if cells > 2 else ():
        others = np.arange(cells) != cell
        prior = fit_prior(variances[others], degrees[others])
        known = min(prior.degrees, float(degrees[others].sum()))
        p_values[cell] = fdtrc(degrees[cell], known, variances[cell] / prior.spread**2)
    return np.asarray(p_values < ODD / max(1, cells))


def moderated_intervals(
    samples: Sequence[npt.ArrayLike],
    confidence: float,
    rounding: Sequence[float],
    floors: Sequence[float],
) -> list[Interval]:
    """Return intervals of means whose ends belong to the tests of `moderated_below_zero`.

    Args:
        samples: differences in nats, one sample for each cell.
        confidence: of each interval by itself.
        rounding: how far a value of each may be off.
        floors: the least standard deviation of each.
    """
    n, mean, spread = moments(samples, floors)
    variance, degrees = _shared(n, np.maximum(spread, ROUNDING)).of(n > 1)
    half = np.full(len(n), math.nan)
    half[n > 1] = t_quantile((1 + confidence) / 2, degrees) * np.sqrt(variance / n[n > 1])
    half += np.asarray(rounding)
    rows = zip(mean.tolist(), half.tolist(), n.tolist(), strict=True)
    return [Interval(middle, middle - off, middle + off, count) for middle, off, count in rows]


def moderated_p(
    n: npt.NDArray[np.int64],
    mean: Floats,
    spread: Floats,
    prior: VariancePrior,
    most_degrees: float = math.inf,
) -> Floats:
    """Return p-values of one-sided tests, which reject if a mean is below zero, given the prior.

    The variance of each test is (d0 s0^2 + d s^2) / (d0 + d), with d0 + d degrees of freedom.

    Args:
        n: values of each sample; at least two.
        mean: of each sample, in nats.
        spread: the standard deviation of each sample, in nats; above 0.
        prior: with degrees of 0 the tests are Student's; with infinity and no `most_degrees` they
            are z-tests with its spread.
        most_degrees: of a test; a prior that was estimated knows no more than all samples.
    """
    return _p_values(n, mean, *_borrowed(n, spread, prior, most_degrees))


def _p_values(n: npt.NDArray[np.int64], mean: Floats, variance: Floats, degrees: Floats) -> Floats:
    from scipy.special import stdtr  # the distribution function of Student's t; imported late

    return np.asarray(np.maximum(stdtr(degrees, mean * np.sqrt(n / variance)), SMALLEST))


def _borrowed(
    n: npt.NDArray[np.int64], spread: Floats, prior: VariancePrior, most_degrees: float
) -> tuple[Floats, Floats]:
    """Return the variance of each sample with what the prior knows, and its degrees of freedom."""
    degrees = n - 1.0
    share = 1.0 if math.isinf(prior.degrees) else prior.degrees / (prior.degrees + degrees)
    borrowed = prior.spread**2 if prior.degrees else 0.0
    variance = share * borrowed + (1 - share) * spread**2
    return np.asarray(variance), np.asarray(np.minimum(prior.degrees + degrees, most_degrees))


def fit_prior(variances: Floats, degrees: npt.NDArray[np.int64]) -> VariancePrior:
    """Estimate the distribution of true variances from the moments of the log sample variances.

    The variance of log s^2 is trigamma(d / 2) + trigamma(d0 / 2): what is more than the first part
    is due to true variances that differ.

    Args:
        variances: s^2 of each sample; above 0.
        degrees: d of each sample; at least 1.

    Returns:
        `NOTHING_KNOWN` with fewer than two samples. Degrees are infinite where the variances
        differ no more than by chance; the spread is then that of all samples pooled.
    """
    if len(variances) < 2:
        return NOTHING_KNOWN
    from scipy.special import digamma, polygamma

    half = degrees / 2
    logs = np.log(variances) - digamma(half) + np.log(half)  # mean log s0^2 - digamma + log of d0/2
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return VariancePrior(math.inf, math.sqrt(np.average(variances, weights=degrees)))
    half_prior = trigamma_inverse(excess)
    log_variance = logs.mean() + digamma(half_prior) - math.log(half_prior)
    return VariancePrior(2 * half_prior, math.exp(log_variance / 2))


def trigamma_inverse(value: float) -> float:
    """Return the x above 0 with trigamma(x) = value, by Newton's method for 1 / trigamma.

    That function is convex and nearly linear, so that the steps never overshoot (Smyth 2004,
    appendix).

    Args:
        value: above 0.
    """
    from scipy.special import polygamma

    if value > 1 / CLOSE:  # trigamma(x) is 1 / x^2 near 0, and 1 / x for large x
        return 1 / math.sqrt(value)
    if value < CLOSE:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(NEWTON_STEPS):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < CLOSE * x:
            break
    return x
