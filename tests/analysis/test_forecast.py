"""Forecasts of verdicts against textbook numbers and simulated sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.claims.claim import Claim
from analysis.claims.claim_file import read_claim
from analysis.claims.contrast import Contrast
from analysis.claims.decisions import Noise, decide
from analysis.claims.forecast import Needed, chances, seeds_needed

UNIT = np.array([-1.0, 0.0, 1.0])  # mean 0, standard deviation 1
TINY = 1e-9  # a margin that plays no part


def claim(**fields: Any) -> Claim:
    return read_claim({"claim": "x", "factor": "kind", "order": ["a", "b"], **fields})


def contrast(mean: float, spread: float = 1.0) -> Contrast:
    """Three differences with exactly this mean and spread."""
    return Contrast("", "", (0, 1, 2), (mean + spread * UNIT)[:, None], np.ones(1), 0, ())


def needed(made: Claim, *contrasts: Contrast) -> Needed:
    return seeds_needed(made, contrasts, decide(made, contrasts))


def odd(contrasts: int) -> Noise:
    """Noise that does not look normal."""
    noise = Noise(())
    vars(noise).update(p_normal=0.001, flat=(False,) * contrasts)
    return noise


def test_the_chance_is_that_of_the_noncentral_t_distribution() -> None:
    made = claim(margin=TINY)
    # G*Power: one-sided paired t-test, d = 0.5, n = 27, alpha = 0.05: power 0.8118
    assert chances(made, [contrast(-0.5)], 27).supported == pytest.approx(0.8118, abs=2e-3)
    one = chances(made, [contrast(-1)], 6).supported
    both = chances(made, [contrast(-1), contrast(-1)], 6).supported
    assert both == pytest.approx(one**2, abs=1e-3)
    negated = claim(margin=TINY, holds="not in every cell")
    some = chances(negated, [contrast(1), contrast(1)], 6).supported
    one = chances(negated, [contrast(1)], 6).supported
    assert one < some < 1 - (1 - one) ** 2  # each at half the level
    assert chances(made, [contrast(1)], 6).supported < 0.01


def test_the_seeds_that_are_needed_are_the_fewest_with_that_chance() -> None:
    made = claim(margin=TINY)
    assert needed(made, contrast(-0.5)).to_show == 27  # a textbook number, by G*Power too
    assert needed(made, contrast(-30.31), contrast(-0.11)).to_show == 513  # (1.645+0.842)^2/0.11^2
    for mean in (-0.3, -1.0, -3.0):
        n = needed(made, contrast(mean)).to_show
        assert n is not None
        assert chances(made, [contrast(mean)], n).supported >= 0.8
        assert n == 2 or chances(made, [contrast(mean)], n - 1).supported < 0.8
    assert needed(made, contrast(0.1)).to_show is None  # the effect points the other way
    assert needed(made, contrast(-0.01)).to_show is None  # 61,827 of them
    one = Contrast("", "", (0,), np.array([[-1.0]]), np.ones(1), 0, ())
    assert needed(made, one) == Needed(None, None)


def test_what_is_better_by_less_than_the_margin_is_refuted_by_more_seeds_and_never_shown() -> None:
    """The weakest of 36 cells has -0.0003 with a spread of 0.0027; the others are clear."""
    made = claim(margin=0.002)
    cells = [contrast(-0.0003, 0.0027), *[contrast(-0.03, 0.0027)] * 35]
    found = needed(made, *cells)
    assert found.to_show is None
    assert found.to_refute is not None
    assert 40 <= found.to_refute <= 60
    at_fifty = chances(made, cells, 50)
    assert at_fifty.refuted == pytest.approx(0.88, abs=0.05)
    assert chances(made, cells, 499).supported == pytest.approx(0.0, abs=0.001)
    assert max(chances(made, cells, n).supported for n in range(2, 100)) <= 0.15


def test_where_the_signs_have_to_agree_there_are_enough_for_it() -> None:
    made = claim(margin=TINY)
    clear = contrast(-30, 1)
    assert needed(made, clear).to_show == 2
    skewed = odd(1)
    decision = decide(made, [clear])
    doubted = type(decision)(**{**vars(decision), "noise": skewed})
    assert seeds_needed(made, [clear], doubted).to_show == 5  # 2^-5 < 5 %
    negated = claim(margin=TINY, holds="not in every cell")
    wrong = [contrast(30, 1)] * 10
    doubted = type(decision)(**{**vars(decision), "noise": odd(10)})
    assert seeds_needed(negated, wrong, doubted).to_show == 8  # 10 / 2^8 < 5 %


def simulated(
    made: Claim, known: list[Contrast], seeds: int, sweeps: int = 1_500
) -> tuple[float, float]:
    """Shares of SUPPORTED and NOT SUPPORTED with the means and spreads of the known."""
    chance = np.random.default_rng(3)
    found = []
    for _ in range(sweeps):
        drawn = []
        for each in known:
            residuals = each.losses - each.losses.mean(axis=0)
            mixed = chance.standard_normal((seeds, len(residuals))) @ residuals
            losses = each.losses.mean(axis=0) + mixed / (len(residuals) - 1) ** 0.5
            drawn.append(Contrast("", "", tuple(range(seeds)), losses, each.weights, 0, ()))
        found.append(decide(made, drawn).verdict)
    return found.count("SUPPORTED") / sweeps, found.count("NOT SUPPORTED") / sweeps


@pytest.mark.parametrize(
    ("fields", "means", "spread", "seeds"),
    [
        ({}, [-0.0015], 0.0015, 10),  # below the margin: either verdict may come
        ({}, [-0.0003, -0.03], 0.0027, 20),
        ({"holds": "not in every cell"}, [-0.0003, 0.004], 0.0027, 8),
        ({"order": None, "equal": ["a", "b"]}, [0.0005], 0.0015, 8),
        ({"order": None, "equal": ["a", "b"], "holds": "not in every cell"}, [0.005], 0.003, 8),
    ],
)
def test_the_margin_rule_is_part_of_the_forecast(
    fields: dict[str, Any], means: list[float], spread: float, seeds: int
) -> None:
    made, known = claim(**fields), [contrast(mean, spread) for mean in means]
    expected = chances(made, known, seeds)
    assert 0.05 < expected.supported < 0.95
    found = simulated(made, known, seeds)
    assert found == pytest.approx((expected.supported, expected.refuted), abs=0.05)


def trend(levels: list[float], spread: float) -> Contrast:
    """Five seeds of levels, whose noise is independent."""
    noise = np.random.default_rng(4).normal(0, spread, (5, len(levels)))
    losses = np.array(levels) + noise - noise.mean(axis=0)
    position = np.arange(len(levels)) - (len(levels) - 1) / 2
    weights = -position * (len(levels) - 1) / (position**2).sum()
    return Contrast("", "", tuple(range(5)), losses, weights, 0, ())


def test_a_trend_is_forecast_with_pages_test() -> None:
    made = read_claim({"claim": "x", "factor": "width", "trend": "falling"})
    known = [trend([2.0, 2.0 + 0.004, 2.0 + 0.006], 0.004)]
    for seeds in (4, 7):
        expected = chances(made, known, seeds)
        found = simulated(made, known, seeds, 600)
        assert found == pytest.approx((expected.supported, expected.refuted), abs=0.05)
    # In perfect order Page's smallest p-value for three levels is 1/6^n, or a little more where it
    # is approximate; with noise in one step it takes more seeds than the line does.
    noisy = trend([2.0, 2.0001, 2.5], 0.02)
    line = Contrast("", "", noisy.seeds, noisy.differences[:, None], np.ones(1), 0, ())
    by_line, by_both = needed(made, line).to_show, needed(made, noisy).to_show
    assert by_line is not None
    assert by_both is not None
    assert by_both > by_line
    shares = [simulated(made, [noisy], seeds, 400)[0] for seeds in (by_line, by_both)]
    assert shares[0] < 0.75 < shares[1]
