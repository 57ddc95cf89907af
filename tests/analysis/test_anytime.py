"""Tests that hold at every look, held against their definitions and against chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.anytime import (
    BETS,
    EFFECTS,
    LEAST,
    OVERSHOOT,
    WEIGHTS,
    log_e_below_zero,
    log_e_bounded,
    log_e_of_prior,
    log_e_order,
    p_value,
    upper_limit,
)
from analysis.statistics import Floats

SWEEPS, LOOKS, ERROR = 4_000, 50, 0.05
STANDARD_ERROR = (ERROR * (1 - ERROR) / SWEEPS) ** 0.5
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]


def ratio_of_likelihoods(x: Floats, effect: float) -> float:
    """Of the values up to their scale: integrated over it with the right Haar measure."""
    n, scale = len(x), np.sqrt((x**2).sum())

    def at(u: float, effect: float) -> float:
        return float(u ** (n - 1) * np.exp(-(((u * x / scale) - effect) ** 2).sum() / 2))

    upper = 10 * math.sqrt(n) + 10 * abs(effect)
    both = (integrate.quad(at, 0, upper, args=(each,), limit=200)[0] for each in (effect, 0.0))
    return float(next(both) / next(both))


def plain(log_e: Floats) -> Floats:
    """E-values with the overshoot."""
    sharpened = log_e >= math.log(LEAST / OVERSHOOT)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(log_e + np.where(sharpened, math.log(OVERSHOOT), 0)))


def log_e_of(x: Floats, effect: float) -> float:
    """The last log e-value of the test with one half-normal prior."""
    return float(log_e_of_prior(x.cumsum(), (x**2).cumsum(), effect)[-1])


@pytest.mark.parametrize("scale", [0.5, EFFECTS[0]])
@pytest.mark.parametrize("values", [[-0.3, -0.7, 0.1, -0.9], [0.4, 0.1], [-1.0], [-5.0, -5.1, -5]])
def test_it_is_the_mean_ratio_of_likelihoods_over_the_prior(
    values: list[float], scale: float
) -> None:
    x = np.array(values)

    def weighed(effect: float) -> float:
        prior = 2 * stats.norm.pdf(effect, scale=scale)
        return float(prior) * ratio_of_likelihoods(x, effect)

    expected = integrate.quad(weighed, -10 * scale, 0, limit=200)[0]
    assert log_e_of(x, scale) == pytest.approx(math.log(expected), abs=1e-5)


def test_the_prior_is_a_mixture_and_what_is_left_of_the_error_is_used() -> None:
    x = np.random.default_rng(2).normal(-2, 1, 9)
    mixed = WEIGHTS @ [math.exp(log_e_of(x, effect)) for effect in EFFECTS]
    assert math.exp(log_e_below_zero(x)[-1]) == pytest.approx(mixed / OVERSHOOT)
    assert math.exp(log_e_below_zero([-1.0])[-1]) < LEAST
    assert WEIGHTS.sum() == 1


@pytest.mark.parametrize("effect", EFFECTS)
def test_both_sides_together_are_the_two_sided_form_of_wang_and_ramdas(effect: float) -> None:
    x = np.random.default_rng(3).normal(-0.4, 1, 30)
    n, total, squares, c2 = len(x), x.sum(), (x**2).sum(), 1 / effect**2
    published = math.sqrt(c2 / (n + c2)) * (
        (n + c2) * squares / ((n + c2) * squares - total**2)
    ) ** (n / 2)
    sides = [math.exp(log_e_of(sign * x, effect)) for sign in (1, -1)]
    assert sum(sides) / 2 == pytest.approx(published)


# Student's sleep data, R's `sleep`: the second drug minus the first, in hours of sleep.
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])


def test_over_all_scales_it_is_the_default_bayes_factor_of_rouder_and_others() -> None:
    """R's BayesFactor gives 34.41694 for a negative effect and 0.1008246 for the rest (r = 0.707).

    A half-Cauchy prior is a mixture of half-normal ones: their scales are r / |z|, z normal.
    """
    for sign, published in ((-1, 34.41694), (1, 0.1008246)):

        def weighed(z: float, sign: int = sign) -> float:
            return float(2 * stats.norm.pdf(z) * math.exp(log_e_of(sign * SLEEP, 0.5**0.5 / z)))

        assert integrate.quad(weighed, 1e-9, 12)[0] == pytest.approx(published, rel=1e-5)


def test_the_overshoot_is_a_bound_of_what_is_left_of_the_error() -> None:
    """By importance sampling: effects are drawn from the prior, so that the e-values grow."""
    chance, sweeps, looks = np.random.default_rng(11), 4_000, 500
    scales = chance.choice(EFFECTS, size=sweeps, p=WEIGHTS)
    effects = scales * np.abs(chance.standard_normal(sweeps))
    e = plain(log_e_below_zero(chance.normal(-effects[:, None], 1, (sweeps, looks))))
    parts = []
    for limit in np.geomspace(LEAST, 1e6, 60):
        rejects = e >= limit
        at = e[np.arange(sweeps), rejects.argmax(axis=1)]
        parts.append(np.where(rejects.any(axis=1), limit / at, 1.0).mean())  # 1: it may come later
    assert OVERSHOOT - 0.05 < max(parts) < OVERSHOOT + 0.005


def test_it_depends_on_no_scale_and_falls_as_the_mean_rises() -> None:
    x = np.random.default_rng(4).normal(-0.5, 1, (5, 20))
    assert log_e_below_zero(1e-3 * x) == pytest.approx(log_e_below_zero(x))
    for higher in (0.01, 0.5, 3):
        assert (log_e_below_zero(x + higher) <= log_e_below_zero(x)).all()
        assert (log_e_below_zero(x + higher)[:, 1:] < log_e_below_zero(x)[:, 1:]).all()
        assert (log_e_bounded(x / 9 + higher / 9, 1) < log_e_bounded(x / 9, 1)).all()


@pytest.mark.parametrize("effect", [0.5, 2, 20])
def test_a_mean_far_above_zero_never_looks_below_it(effect: float) -> None:
    x = np.random.default_rng(1).normal(effect, 1, 3_000)
    log_e = log_e_below_zero(x)
    assert np.isfinite(log_e).all()
    assert log_e.max() < math.log(20)
    assert (log_e[100:] < 0).all()
    assert log_e_below_zero(-x)[-1] > math.log(20)


def test_values_without_a_spread_show_no_more_than_those_of_rounding() -> None:
    same = np.full(6, -0.1)
    assert log_e_below_zero(same, floor=0.05)[-1] < log_e_below_zero(same)[-1]
    assert log_e_below_zero(same)[1] > math.log(20) > log_e_below_zero(same)[0], "two pairs"
    assert log_e_below_zero(np.zeros(5))[-1] < 0


def test_the_bounded_test_is_the_average_wealth_of_bets() -> None:
    values, bound = [-0.02, 0.05, -0.1], 0.2
    wealth = [math.prod(1 - bet * value / bound for value in values) for bet in BETS]
    assert log_e_bounded(values, bound)[-1] == pytest.approx(math.log(np.mean(wealth)))
    beyond = log_e_bounded([-0.1, 0.3, -0.1], bound)
    assert np.isfinite(beyond[0])
    assert (beyond[1:] == -np.inf).all()


@pytest.mark.parametrize("levels", [3, 4, 8])
def test_the_order_test_is_fair_if_every_order_is_equally_likely(levels: int) -> None:
    orders = list(itertools.islice(itertools.permutations(range(levels)), 50_000))
    if levels > 7:
        orders = [tuple(np.random.default_rng(i).permutation(levels)) for i in range(20_000)]
    found = [math.exp(log_e_order(np.array([order], float))[0]) for order in orders]
    assert np.mean(found) == pytest.approx(1, abs=1e-9) if levels < 8 else np.mean(found) < 1
    falling = np.tile(np.arange(levels, dtype=float)[::-1], (5, 1))
    assert (np.diff(log_e_order(falling)) > 0).all()
    assert log_e_order(falling)[-1] > math.log(20)
    assert log_e_order(falling[:, ::-1])[-1] < 0


def normal(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return chance.normal(0, 1, shape)


def heavy(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return chance.standard_t(3, shape) - chance.standard_t(3, shape)


def stuck(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """The arm that looks better gets stuck 0.1 higher in 5 % of its runs; means are equal."""
    noise = chance.normal(0, 0.005, (2, *shape))
    return np.asarray(noise[0] - noise[1] + 0.1 * (chance.random(shape) < 0.05) - 0.005)


def lognormal(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    drawn = chance.lognormal(0, 1, shape)
    return np.asarray((drawn - math.exp(0.5)) * 0.005 / math.sqrt((math.e - 1) * math.e))


def wrong(log_e: Floats) -> float:
    """The share of sweeps in which a look after some seed finds a false claim supported."""
    return float((log_e.max(axis=1) >= -math.log(ERROR)).mean())


@pytest.mark.parametrize("draw", [normal, heavy])
def test_looking_after_each_seed_is_wrong_as_seldom_as_it_says(draw: Draw) -> None:
    values = draw(np.random.default_rng(5), (SWEEPS, LOOKS))
    assert wrong(log_e_below_zero(values)) < ERROR + 3 * STANDARD_ERROR


@pytest.mark.parametrize("draw", [stuck, lognormal])
def test_skewed_noise_needs_the_bound(draw: Draw) -> None:
    values = draw(np.random.default_rng(6), (SWEEPS, LOOKS))
    assert wrong(log_e_below_zero(values)) > 2 * ERROR
    assert wrong(log_e_bounded(values, bound=0.2)) < ERROR + 3 * STANDARD_ERROR


@pytest.mark.parametrize("bound", [None, 5.0])
def test_a_limit_is_below_the_mean_at_no_look_but_in_a_share_of_samples(
    bound: float | None,
) -> None:
    chance = np.random.default_rng(7)
    samples = np.clip(chance.normal(0.3, 1, (60, 8)), -4, 4)
    missed = [
        any(upper_limit(x[:n], ERROR, bound=bound) < 0.3 for n in range(2, 9)) for x in samples
    ]
    assert np.mean(missed) < 0.1
    limits = [upper_limit(samples[0][:n], ERROR, bound=bound) for n in (2, 5, 8)]
    assert limits[0] >= limits[-1] > samples[0].mean()


def test_a_limit_belongs_to_the_test() -> None:
    x = np.random.default_rng(8).normal(-1, 1, 15)
    limit = upper_limit(x, ERROR)
    for mean, is_rejected in ((limit + 1e-6, True), (limit - 1e-6, False)):
        assert (math.exp(-log_e_below_zero(x - mean)[-1]) <= ERROR) == is_rejected
    assert upper_limit(x[:1], ERROR) == math.inf, "one pair shows nothing"
    assert upper_limit([], ERROR) == math.inf


def test_a_limit_is_above_the_present_mean_whatever_came_first() -> None:
    x = np.array([-0.0451, -0.0450, -0.0002])  # two nearly equal values, and another
    assert upper_limit(x[:2], ERROR) < x.mean() < upper_limit(x, ERROR)


def test_a_p_value_never_rises() -> None:
    log_e = np.array([0.1, 4.0, -3.0])
    assert [p_value(log_e[:n]) for n in (0, 1, 2, 3)] == pytest.approx(
        [1, math.exp(-0.1), math.exp(-4), math.exp(-4)]
    )
    assert p_value(np.array([-2.0])) == 1
