"""Variances shared by the differences of a claim at any look: definitions, limits and chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.anytime import (
    EFFECTS,
    OVERSHOOT,
    WEIGHTS,
    Residuals,
    log_e_below_zero,
    log_e_of_prior,
)
from analysis.claims.borrowing import residuals_of_others
from analysis.claims.contrast import DIFFERENCE, Contrast
from analysis.claims.one_sided import OneSided
from analysis.claims.procedures import Anytime
from analysis.statistics import Floats

ERROR = 0.05
PLAIN, SHARED = Anytime(ERROR), Anytime(ERROR, borrows=True)


def contrast(values: Sequence[float] | Floats, name: str, against: str = "") -> Contrast:
    """Pairs with these differences, of the runs of one configuration against another."""
    losses = np.column_stack([values, np.zeros(len(values))])
    sides = name, against or f"{name}'"
    runs = tuple(f"{side} {seed}" for seed in range(len(values)) for side in sides)
    return Contrast("", "", tuple(range(len(values))), losses, DIFFERENCE, 0, runs)


def p_values(procedure: Anytime, contrasts: Sequence[Contrast]) -> list[float]:
    return procedure.p_values(contrasts, [OneSided(1, 0.0)] * len(contrasts), None).tolist()


@pytest.mark.parametrize(("squares", "degrees"), [(0.0, 0), (0.7, 1), (3.0, 11)])
def test_the_e_value_is_the_ratio_of_likelihoods_of_values_and_residuals(
    squares: float, degrees: int
) -> None:
    x, prior = np.array([-1.1, -0.4, -0.9]), 2.5

    def density(scale: float, effect: float) -> float:
        """Of values and residuals given 1 / standard deviation, with the right Haar measure."""
        power = len(x) + degrees - 1
        return float(
            scale**power * np.exp(-(((scale * x - effect) ** 2).sum() + scale**2 * squares) / 2)
        )

    def marginal(effect: float) -> float:
        return float(integrate.quad(density, 0, 60, args=(effect,), limit=300)[0])

    def weighed(effect: float) -> float:
        return float(2 * stats.norm.pdf(effect, scale=prior)) * marginal(effect)

    expected = integrate.quad(weighed, -20, 0, limit=200)[0] / marginal(0.0)
    found = log_e_of_prior(x.cumsum(), (x**2).cumsum() + squares, prior, degrees)[-1]
    assert math.exp(found) == pytest.approx(expected, rel=1e-6)


def test_with_many_residuals_the_variance_is_known() -> None:
    """Of values with the standard deviation 1 the ratio is in every textbook."""
    x = np.array([-1.5, -2.2, -3.0])
    n, total, prior = len(x), x.sum(), 1 / EFFECTS**2
    ratios = (
        2
        * np.sqrt(prior / (n + prior))
        * np.exp(total**2 / (2 * (n + prior)))
        * stats.norm.cdf(-total / np.sqrt(n + prior))
    )
    found = log_e_below_zero(x, others=Residuals(1e7, 1e7))[-1]
    assert math.exp(found) == pytest.approx(float(WEIGHTS @ ratios) / OVERSHOOT, rel=1e-4)


def test_the_first_two_pairs_of_differences_without_a_common_trial_are_used() -> None:
    first = contrast([-1.0, -1.2, -0.9], "a", "b")
    shares = contrast([-3.0, -4.0], "b", "c")  # a trial with the first one
    apart = contrast([-2.0, -2.4, 9.0], "d", "e")
    neighbour = contrast([-5.0, -5.8], "e", "f")  # a trial with the one before
    found = residuals_of_others([first, shares, apart, neighbour])
    assert found is not None
    assert np.ravel(found.degrees).tolist() == [1, 1, 1, 1]
    expected = [0.4**2 / 2, 0.4**2 / 2, 0.2**2 / 2, 0.2**2 / 2]
    assert np.ravel(found.squares) == pytest.approx(expected)


def test_a_difference_without_others_borrows_nothing() -> None:
    alone = contrast([-1.0, -1.2, -0.9], "a")
    found = residuals_of_others([alone])
    assert found is not None
    assert np.ravel(found).tolist() == [0, 0]
    assert p_values(SHARED, [alone]) == p_values(PLAIN, [alone])


def test_the_variance_of_a_line_is_that_of_its_weights() -> None:
    cells = [contrast([-1.0, -1.2], "a"), contrast([-1.0, -1.9], "b")]
    steep = [replace(each, weights=3 * each.weights) for each in cells]
    plain, scaled = residuals_of_others(cells), residuals_of_others(steep)
    assert plain is not None
    assert scaled is not None
    assert np.ravel(scaled.squares) == pytest.approx(9 * np.ravel(plain.squares))


def test_nothing_is_decided_before_each_difference_has_two_pairs() -> None:
    clear = [contrast([-1.0, -1.01, -1.02], "a"), contrast([-1.0, -1.01], "b")]
    late = contrast([-1.0], "c")
    assert max(p_values(SHARED, clear)) < ERROR
    assert p_values(SHARED, [*clear, late]) == [1, 1, 1]
    assert p_values(PLAIN, [*clear, late])[0] < ERROR
    assert SHARED.interval([*clear, late], 0, 1).high == math.inf
    assert p_values(SHARED, []) == []


def test_an_interval_belongs_to_the_test() -> None:
    chance = np.random.default_rng(5)
    cells = [contrast(chance.normal(-1, 1, 4), name) for name in "abcdefgh"]
    found = SHARED.intervals(cells, 1)
    assert found[2] == SHARED.interval(cells, 2, 1)
    assert found[2].high < PLAIN.interval(cells, 2, 1).high
    at_the_edge = [OneSided(1, -each.high) for each in found]
    p_values = SHARED.p_values(cells, at_the_edge, None)  # lower where an earlier look saw more
    assert (p_values < ERROR + 1e-6).all()
    assert p_values.max() == pytest.approx(ERROR, abs=1e-6)


def test_a_larger_mean_makes_every_e_value_smaller() -> None:
    x, others = np.random.default_rng(4).normal(-0.5, 1, (5, 20)), Residuals(9.0, 11.0)
    for higher in (0.01, 0.5, 3):
        found = log_e_below_zero(x + higher, others=others)
        assert (found <= log_e_below_zero(x, others=others)).all()


def test_values_that_spread_plainly_more_count_as_they_do_by_themselves() -> None:
    others, alike = Residuals(11.0, 11.0), np.array([-2.0, -1.0, -2.5, -3.0])
    shared = log_e_below_zero(alike, others=others)
    assert (shared[1:] > log_e_below_zero(alike)[1:]).all()
    wild = np.array([-9.0, -2.0, -12.0, -3.0])
    assert (log_e_below_zero(wild, others=others) == log_e_below_zero(wild)).all()
    assert log_e_below_zero([-9.0], others=others) == log_e_below_zero([-9.0]), "one value"


def rates(first: float, sweeps: int = 1_000, cells: int = 6) -> tuple[float, float]:
    """How often a cell without a difference is found better at any of 30 looks: plain, and shared.

    The other cells get seeds for as long as they look worse.

    Args:
        first: its standard deviation, as a multiple of that of the others.
        sweeps: that are drawn.
        cells: of the claim.
    """
    chance, found = np.random.default_rng(8), np.zeros(2)
    for _ in range(sweeps):
        drawn = chance.normal(0, 1, (cells, 30))
        drawn[0] *= first
        ends = [30, *(3 + (drawn[1:, 2:] < 0).argmax(axis=1))]
        rows = zip("abcdef", drawn, ends, strict=True)
        made = [contrast(row[:end], name) for name, row, end in rows]
        found += [p_values(procedure, made)[0] < ERROR for procedure in (PLAIN, SHARED)]
    return float(found[0] / sweeps), float(found[1] / sweeps)


def test_the_level_holds_if_variances_are_equal_and_not_if_one_is_much_larger() -> None:
    most = ERROR + 3 * (ERROR * (1 - ERROR) / 1_000) ** 0.5
    assert max(rates(first=1)) < most
    plain, shared = rates(first=4)
    assert plain < most < shared
