"""Statistics against numbers computed by hand, textbook examples, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from analysis.statistics import (
    Interval,
    bca_interval,
    equivalence,
    holm,
    page_trend,
    paired_t,
    paired_ts,
    power,
    seeds_needed,
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
    one, equal = interval([0.5]), interval([0.5, 0.5, 0.5])
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert (equal.low, equal.high) == (0.5, 0.5)


def test_the_paired_t_test_by_hand() -> None:
    mean, sd = np.mean(FIVE), np.std(FIVE, ddof=1)
    t = mean / (sd / math.sqrt(5))
    assert t == pytest.approx(-2.0925, abs=1e-4)  # -0.018 / 0.0086023
    assert paired_t(FIVE, "less") == pytest.approx(0.05224, abs=1e-4)
    assert paired_t(FIVE, "less") + paired_t(FIVE, "greater") == pytest.approx(1)
    assert paired_t(FIVE) == pytest.approx(2 * paired_t(FIVE, "less"))


def test_the_sign_flip_test_counts_all_patterns() -> None:
    means = [np.dot(FIVE, signs) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean([mean <= sum(FIVE) + 1e-12 for mean in means])
    assert sign_flip(FIVE, "less") == pytest.approx(expected)
    assert sign_flip([-1.0, -2.0, -3.0, -4.0, -5.0], "less") == 1 / 32


def test_one_difference_concludes_nothing() -> None:
    assert paired_t([-1.0], "less") == 1
    assert sign_flip([-1.0], "less") == 1
    assert seeds_needed([[-1.0]], 0.05) is None


def test_differences_without_spread_go_by_their_direction() -> None:
    same = [-0.5, -0.5, -0.5]
    assert (paired_t(same, "less"), paired_t(same, "greater")) == (0, 1)
    assert paired_t([0.0, 0.0], "less") == 1


def test_what_is_not_finite_has_no_place() -> None:
    with pytest.raises(ValueError, match="not finite"):
        paired_t([0.1, math.nan])


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


def test_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    x = np.array([0.001, -0.002, 0.0, 0.002, -0.001])
    both = (paired_t(x + 0.01, "greater"), paired_t(x - 0.01, "less"))
    one, two = equivalence([x, x + 0.02], 0.01)
    assert one == max(both) < 0.001
    assert two > 0.99
    assert equivalence([x], 0.0005) > 0.05


def test_many_samples_are_tested_as_each_alone() -> None:
    samples = [FIVE, (1.0, 2.0), (0.5,), (0.2, 0.2, 0.2), (3.0, 2.0, 4.0, -9.0, 1.0)]
    expected = [ttest_1samp(x, 0, alternative="less").pvalue for x in samples if len(set(x)) > 1]
    expected.insert(2, 1.0)  # one value
    expected.insert(3, 1.0)  # no spread, and above zero
    assert paired_ts(samples, "less") == pytest.approx(expected)
    assert list(map(str, t_intervals(samples))) == [str(t_interval(x)) for x in samples]
    assert t_intervals(samples)[3] == Interval(pytest.approx(0.2), 0.2, 0.2, 3)


def test_intervals_cover_and_tests_reject_as_often_as_they_say() -> None:
    chance = np.random.default_rng(7)
    samples = chance.normal(0.0, 1.0, (2_000, 6))
    covered = np.mean([abs(i.mean) <= (i.high - i.low) / 2 for i in map(t_interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.015)
    assert np.mean([paired_t(x, "less") < 0.05 for x in samples]) == pytest.approx(0.05, abs=0.015)
    assert np.mean([sign_flip(x, "less") < 0.05 for x in samples[:500]]) <= 0.07


def test_the_bootstrap_interval_depends_on_its_seed_alone_and_covers() -> None:
    assert bca_interval(FIVE, seed=1) == bca_interval(FIVE, seed=1)
    chance = np.random.default_rng(8)
    skewed = chance.exponential(1.0, (200, 25))
    found = [bca_interval(x) for x in skewed]
    assert np.mean([i.low <= 1.0 <= i.high for i in found]) == pytest.approx(0.93, abs=0.05)


UNIT = np.array([-1.0, 0.0, 1.0])  # mean 0, standard deviation 1


def test_the_power_is_that_of_the_noncentral_t_distribution() -> None:
    # G*Power: one-sided paired t-test, d = 0.5, n = 27, alpha = 0.05: power 0.8118
    assert power([UNIT - 0.5], 27, 0.05) == pytest.approx(0.8118, abs=1e-3)
    one = power([UNIT - 1], 6, 0.05)
    assert power([UNIT - 1, UNIT - 1], 6, 0.05) == pytest.approx(one**2)
    half = power([UNIT - 1], 6, 0.025)
    assert power([UNIT - 1, UNIT - 1], 6, 0.05, any_of=True) == pytest.approx(1 - (1 - half) ** 2)
    assert power([UNIT + 1], 6, 0.05) < 0.01
    assert power([[-1.0, -1.0]], 2, 0.05) == 1


def test_the_power_rises_with_the_effect_and_the_seeds() -> None:
    effects = np.geomspace(0.01, 300, 60)
    for n in (2, 3, 4, 8, 30, 500):
        rising = [power([UNIT - effect], n, 0.05) for effect in effects]
        assert np.diff(rising).min() > -1e-9
        assert rising[-1] == pytest.approx(1)
    assert seeds_needed([UNIT - 30.31, UNIT - 0.11], 0.05) == 513  # (1.645 + 0.842)^2 / 0.11^2


def test_the_seeds_that_are_needed_are_the_fewest_with_that_power() -> None:
    assert seeds_needed([UNIT - 0.5], 0.05) == 27  # a textbook number, by G*Power too
    for sample in (UNIT - 0.3, UNIT - 1, UNIT - 3):
        n = seeds_needed([sample], 0.05)
        assert n is not None
        assert power([sample], n, 0.05) >= 0.8
        assert n == 2 or power([sample], n - 1, 0.05) < 0.8
    assert seeds_needed([UNIT + 0.1], 0.05) is None  # the effect points the other way
    assert seeds_needed([UNIT - 0.01], 0.05) is None  # 61,827 of them


@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_simulated_tests_have_the_power_that_is_forecast(effect: float) -> None:
    n = seeds_needed([UNIT - effect], 0.05)
    assert n is not None
    chance = np.random.default_rng(9)
    found = [paired_t(x, "less") < 0.05 for x in chance.normal(-effect, 1.0, (2_000, n))]
    assert np.mean(found) == pytest.approx(power([UNIT - effect], n, 0.05), abs=0.03)
