"""Tests with borrowed variances against numbers by hand, limits, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr, stdtr

from analysis.moderated import (
    NOTHING_KNOWN,
    VariancePrior,
    fit_prior,
    moderated_below_zero,
    moderated_p,
    trigamma_inverse,
)
from analysis.statistics import below_zero
from benchmarks.moderated import CLEAR, VARIANCES, all_reject, seeds_until_better

FIVE = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # of variance 2.5
# Log variances 0, a, 2a have the variance a^2. With four degrees of freedom trigamma(2) = pi^2 / 6
# - 1 of it is chance; with this a the rest is pi^2 / 2 = trigamma(1/2), so d0 is 1.
A = math.sqrt(2 * math.pi**2 / 3 - 1)
BY_HAND = np.exp([0, A, 2 * A])


def samples_of(variances: np.ndarray, mean: float) -> list[np.ndarray]:
    return [mean + FIVE * math.sqrt(variance / 2.5) for variance in variances]


@pytest.mark.parametrize(
    ("value", "x"),
    [
        (math.pi**2 / 6, 1),
        (math.pi**2 / 2, 0.5),
        (math.pi**2 / 6 - 1, 2),
        (math.pi**2 / 6 - 1 - 1 / 4 - 1 / 9, 4),
        (1e10, 1e-5),
        (1e-10, 1e10),
    ],
)
def test_the_inverse_of_trigamma_by_hand(value: float, x: float) -> None:
    assert trigamma_inverse(value) == pytest.approx(x, rel=1e-6)


def test_the_prior_by_hand() -> None:
    # The mean of log s^2 is a; less digamma(2) - log 2, and with digamma(1/2) - log(1/2), of which
    # the first is 1 - gamma - log 2 and the second -gamma - log 2, it is a - 1.
    prior = fit_prior(BY_HAND, np.array([4, 4, 4]))
    assert prior.degrees == pytest.approx(1)
    assert prior.spread**2 == pytest.approx(math.exp(A - 1))


def test_each_test_has_its_own_variance_and_that_of_the_prior_by_hand() -> None:
    found = moderated_below_zero(samples_of(BY_HAND, -1.5))
    variance = (math.exp(A - 1) + 4 * BY_HAND) / 5
    assert found.p_values == pytest.approx(stdtr(5, -1.5 / np.sqrt(variance / 5)))
    assert found.prior.degrees == pytest.approx(1)


def test_with_equal_variances_all_samples_are_pooled() -> None:
    found = moderated_below_zero(samples_of(np.array([4.0, 4.1, 3.9, 4.0]), -2.0))
    assert found.prior == VariancePrior(math.inf, pytest.approx(2.0))
    assert found.p_values == pytest.approx([stdtr(16, -math.sqrt(5))] * 4)


def test_samples_count_by_their_degrees_of_freedom() -> None:
    prior = fit_prior(np.array([1.0, 1.1]), np.array([4, 12]))
    assert prior == VariancePrior(math.inf, pytest.approx(math.sqrt((4 * 1 + 12 * 1.1) / 16)))


def test_the_limits_are_students_t_and_the_z_test() -> None:
    n, mean, spread = np.array([5, 3]), np.array([-0.01, 0.02]), np.array([0.007, 0.02])
    t = mean / spread * np.sqrt(n)
    plain = stdtr(n - 1, t)
    assert moderated_p(n, mean, spread, NOTHING_KNOWN) == pytest.approx(plain)
    assert moderated_p(n, mean, spread, VariancePrior(1e-12, 0.5)) == pytest.approx(plain)
    z_test = ndtr(mean / 0.009 * np.sqrt(n))
    assert moderated_p(n, mean, spread, VariancePrior(math.inf, 0.009)) == pytest.approx(z_test)
    assert moderated_p(n, mean, spread, VariancePrior(1e9, 0.009)) == pytest.approx(z_test)


def test_one_sample_borrows_nothing_and_one_value_says_nothing() -> None:
    sample = [-0.03, -0.01, -0.02, -0.04, 0.01]
    found = moderated_below_zero([sample, [-1.0], []])
    assert found.prior == NOTHING_KNOWN
    assert found.p_values.tolist() == [below_zero([sample])[0], 1, 1]
    assert moderated_below_zero([]).p_values.tolist() == []
    with pytest.raises(ValueError, match="not finite"):
        moderated_below_zero([[0.1, math.nan], sample])


def test_a_spread_is_at_least_its_floor() -> None:
    flat = [[-0.01] * 5] * 3
    floor = 0.01 / math.sqrt(6)
    found = moderated_below_zero(flat, [floor] * 3)
    assert found.p_values == pytest.approx([stdtr(12, -0.01 * math.sqrt(5) / floor)] * 3)
    assert (moderated_below_zero(flat).p_values > 0).all()


def test_a_prior_is_found_again() -> None:
    chance = np.random.default_rng(1)
    for d0, s0, degrees in ((4.0, 0.02, 4), (12.0, 3.0, 9)):
        true = s0**2 * d0 / chance.chisquare(d0, 20_000)
        prior = fit_prior(
            true * chance.chisquare(degrees, 20_000) / degrees, np.full(20_000, degrees)
        )
        assert prior.degrees == pytest.approx(d0, rel=0.06)
        assert prior.spread == pytest.approx(s0, rel=0.02)


@pytest.mark.parametrize("name", ["equal", "inverse chi-square, 4 df"])
def test_power_rises_and_the_level_is_kept(name: str) -> None:
    chance, cells = np.random.default_rng(2), 12
    plain, moderated = all_reject(np.full(cells, -0.01), VARIANCES[name], 5, 150, chance)
    assert moderated > 2 * plain
    one_is_null = np.array([0.0] + [-CLEAR] * (cells - 1))
    _, wrong = all_reject(one_is_null, VARIANCES[name], 5, 250, chance)
    assert 0.01 < wrong < 0.055 + 3 * math.sqrt(0.05 * 0.95 / 250)


def test_a_cell_that_is_no_part_of_the_others_is_tested_by_itself() -> None:
    variances = np.array([4.0, 4.1, 3.9, 4.0, 400.0])
    found = moderated_below_zero(samples_of(variances, -2.0))
    assert found.odd.tolist() == [False] * 4 + [True]
    assert found.prior == VariancePrior(math.inf, pytest.approx(2.0))
    assert found.p_values[:4] == pytest.approx([stdtr(16, -math.sqrt(5))] * 4)
    assert found.p_values[4] == pytest.approx(stdtr(4, -math.sqrt(5) / 10))
    # For five cells the limit is the 1 % of F(4, 16), which tables give as 4.77.
    for factor, is_odd in ((4.7, False), (4.85, True)):
        ratios = np.array([1.0, 1.0, 1.0, 1.0, factor])
        assert moderated_below_zero(samples_of(ratios, -1.0)).odd[4] == is_odd


def test_the_level_in_a_cell_that_spreads_more_than_all_others_is_a_known_one() -> None:
    one_is_null = np.array([0.0] + [-CLEAR] * 11)
    for name, most in (("one 4 times as large", 0.18), ("one 16 times as large", 0.12)):
        plain, moderated = all_reject(
            one_is_null, VARIANCES[name], 5, 250, np.random.default_rng(3)
        )
        assert plain < 0.1
        assert moderated < most


def test_at_any_look_borrowing_holds_for_equal_variances_and_takes_fewer_seeds() -> None:
    chance, sweeps, looks = np.random.default_rng(6), 1_000, 20
    means = np.array([0.0, *[-CLEAR] * 11])
    most = 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5
    for name, is_kept in (("equal", True), ("one 4 times as large", False)):
        found = seeds_until_better(means, VARIANCES[name], looks, sweeps, chance)
        plain, borrowed = ((seeds[:, 0] <= looks).mean() for seeds in found)
        assert plain < most
        assert (borrowed < most) == is_kept
    found = seeds_until_better(np.full(12, -0.040), VARIANCES["equal"], looks, 200, chance)
    plain, borrowed = (np.median(seeds.max(axis=1)) for seeds in found)
    assert borrowed == 2 < plain
