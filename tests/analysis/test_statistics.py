"""Statistics against numbers computed by hand, textbook examples, and simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ttest_1samp

from analysis.statistics import (
    ROUNDING,
    Interval,
    bca_interval,
    below_zero,
    holm,
    normality,
    page_trend,
    resolution,
    sign_flip,
    t_interval,
    t_intervals,
)

FIVE = (-0.03, -0.01, -0.02, -0.04, 0.01)


def test_the_t_interval_is_that_of_the_textbook() -> None:
    found = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)  # t(0.975, 4) from a table
    assert (found.mean, found.n) == (3.0, 5)
    assert found.low == pytest.approx(3 - half, abs=1e-5)
    assert found.high == pytest.approx(3 + half, abs=1e-5)


@pytest.mark.parametrize("interval", [t_interval, bca_interval])
def test_one_value_has_no_interval_and_equal_ones_have_no_width(interval) -> None:  # type: ignore[no-untyped-def]
    one, equal = interval([0.5]), interval([0.5] * 10)
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert (equal.low, equal.high) == (0.5, 0.5)


def p_below(values: npt.ArrayLike, floor: float = 0.0) -> float:
    return float(below_zero([values], [floor])[0])


def test_the_paired_t_test_by_hand() -> None:
    mean, sd = np.mean(FIVE), np.std(FIVE, ddof=1)
    t = mean / (sd / math.sqrt(5))
    assert t == pytest.approx(-2.0925, abs=1e-4)  # -0.018 / 0.0086023
    assert p_below(FIVE) == pytest.approx(0.05224, abs=1e-4)
    assert p_below(FIVE) + p_below([-x for x in FIVE]) == pytest.approx(1)


def test_the_sign_flip_test_counts_all_patterns() -> None:
    means = [np.dot(FIVE, signs) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean([mean <= sum(FIVE) + 1e-12 for mean in means])
    assert sign_flip(FIVE) == pytest.approx(expected)
    assert sign_flip([-1.0, -2.0, -3.0, -4.0, -5.0]) == 1 / 32


def test_one_difference_concludes_nothing() -> None:
    assert p_below([-1.0]) == 1
    assert sign_flip([-1.0]) == 1


def test_differences_without_spread_have_that_of_rounding() -> None:
    # Two pairs of 2.40 and 2.41: the error of a difference has the variance 0.01^2 / 6. By hand
    # t = -0.01 / (0.00408 / sqrt 2) = -3.46 with one degree of freedom: p = 0.5 - atan(3.46) / pi.
    floor = 0.01 / math.sqrt(6)
    expected = 0.5 - math.atan(2 * math.sqrt(3)) / math.pi
    assert p_below([-0.01, -0.01], floor) == pytest.approx(expected)
    assert expected == pytest.approx(0.0895, abs=1e-4)
    assert 0 < p_below([-0.5, -0.5, -0.5]) < 1e-9
    assert p_below([0.5, 0.5, 0.5]) > 1 - 1e-9
    assert p_below([0.0, 0.0]) == 0.5
    assert p_below(-1e6 - np.arange(50) / 1e9) > 0


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([2.4, 2.41], 0.01),
        ([2.3, 2.4], 0.1),
        ([2.0, 3.0], 1.0),
        ([2.48322, 2.50986], 1e-5),
        ([2.40625, 2.421875], 2.0**-6),  # of bfloat16 between 2 and 4
        ([2.5, 2.75], 0.25),
    ],
)
def test_the_resolution_is_what_values_were_rounded_to(values: list[float], step: float) -> None:
    assert resolution(values) == step
    assert resolution([*values, 2.3471512]) <= 1e-7


def test_the_resolution_of_single_precision_is_that_of_its_bits() -> None:
    losses = np.random.default_rng(5).normal(2.3, 0.01, 20)
    assert resolution(losses.astype(np.float32)) == 2.0**-22
    assert resolution(losses) == ROUNDING


def test_the_noise_is_tested_for_skew_gaps_and_single_values_far_away() -> None:
    chance = np.random.default_rng(6)

    def alarms(shape: Callable[[tuple[int, int]], npt.ArrayLike]) -> float:
        return float(np.mean([normality(list(shape((24, 5)))) < 0.05 for _ in range(200)]))

    assert alarms(lambda size: chance.normal(0, 1, size)) <= 0.11
    assert alarms(lambda size: chance.lognormal(0, 1, size)) > 0.5
    stuck = alarms(lambda size: chance.normal(0, 1, size) + 20 * (chance.random(size) < 0.05))
    assert stuck > 0.9
    assert normality([[0.1, 0.2], [0.3, 0.3, 0.3]]) == 1


def test_what_is_not_finite_has_no_place() -> None:
    with pytest.raises(ValueError, match="not finite"):
        below_zero([[0.1, math.nan]])


def test_holm_by_hand() -> None:
    # 0.01 * 4, max(., 0.02 * 3), max(., 0.03 * 2), max(., 0.04 * 1)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


def test_pages_test_is_that_of_the_textbook() -> None:
    # Four blocks in perfect order of three levels: L = 4 * (1 + 4 + 9) = 56; all orders are
    # equally likely, so the exact p-value is (1/6)^4.
    assert page_trend([[3, 2, 1]] * 4) == pytest.approx((1 / 6) ** 4)
    assert page_trend([[1, 2, 3]] * 4) > 0.99
    assert page_trend([[3, 2, 1]]) == 1  # one block is none


def test_many_samples_are_tested_as_each_alone() -> None:
    samples = [FIVE, (1.0, 2.0), (0.5,), (0.2, 0.2, 0.2), (3.0, 2.0, 4.0, -9.0, 1.0)]
    expected = [ttest_1samp(x, 0, alternative="less").pvalue for x in samples if len(set(x)) > 1]
    expected.insert(2, 1.0)  # one value
    expected.insert(3, 1.0)  # no spread, and above zero
    assert below_zero(samples) == pytest.approx(expected)
    assert list(map(str, t_intervals(samples))) == [str(t_interval(x)) for x in samples]
    assert t_intervals(samples)[3] == Interval(*[pytest.approx(0.2)] * 3, 3)


def test_intervals_cover_and_tests_reject_as_often_as_they_say() -> None:
    chance = np.random.default_rng(7)
    samples = chance.normal(0.0, 1.0, (2_000, 6))
    covered = np.mean([abs(i.mean) <= (i.high - i.low) / 2 for i in map(t_interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.015)
    assert np.mean(below_zero(samples) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean([sign_flip(x) < 0.05 for x in samples[:500]]) <= 0.07


def test_the_bootstrap_interval_depends_on_its_seed_alone_and_covers() -> None:
    ten = [*FIVE, *np.multiply(2, FIVE)]
    assert bca_interval(ten, seed=1) == bca_interval(ten, seed=1)
    assert math.isnan(bca_interval(ten[:9]).low)  # of nine it would be too narrow
    chance = np.random.default_rng(8)
    skewed = chance.exponential(1.0, (200, 25))
    found = [bca_interval(x) for x in skewed]
    assert np.mean([i.low <= 1.0 <= i.high for i in found]) == pytest.approx(0.93, abs=0.05)
