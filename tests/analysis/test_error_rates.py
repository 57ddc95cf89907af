"""How often verdicts on synthetic sweeps with a known truth are wrong, from the file on.

`python -m benchmarks verdicts` measures more of it, and with other noise than normal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import load_trials
from analysis.claims.claim import NEGATED
from analysis.claims.one_sided import ALPHA
from benchmarks.edges import EDGES, EVERY, REFUTED, SUPPORTED, Edge, by_truth
from benchmarks.synthetic import NOISES, Design, Truth, write_sweep
from benchmarks.verdicts import wrong_shares

SWEEPS, SEEDS = 150, 5
NOISE_OF_A_RATE = 3 * (ALPHA * (1 - ALPHA) / SWEEPS) ** 0.5

CHECKED = by_truth(
    edge
    for edge in EDGES
    if (edge.wrong, edge.holds) == (SUPPORTED, EVERY)
    or (edge.form == "order" and (edge.wrong, edge.holds) != (REFUTED, NEGATED))
)


@pytest.mark.parametrize("edges", CHECKED, ids=lambda edges: str(edges[0]))
def test_at_the_edge_of_its_truth_a_claim_is_misjudged_at_the_nominal_rate(
    edges: list[Edge],
) -> None:
    chance = np.random.default_rng(5)
    shares = wrong_shares(edges, NOISES["normal"], SEEDS, SWEEPS, chance)
    for edge, share in zip(edges, shares, strict=True):
        assert share <= ALPHA + NOISE_OF_A_RATE, edge
        assert share >= 0.01, edge  # else it is no edge, and the line above says nothing


@pytest.mark.parametrize("noise", NOISES)
def test_noise_has_no_mean(noise: str) -> None:
    drawn = NOISES[noise].draw(np.random.default_rng(1), (400_000,))
    assert abs(drawn.mean()) < 4 * drawn.std() / 400_000**0.5
    spread = {"unequal variances": 2.0} | {name: 4.5 for name in NOISES if "stuck" in name}
    assert drawn.std() == pytest.approx(spread.get(noise, 1.0), rel=0.1)


def test_a_sweep_is_read_as_it_was_drawn(tmp_path: Path) -> None:
    noise, truth = NOISES["lognormal"], Truth(((0.2, 0.1, 0.0), (1.0, 1.0, 1.0)), frozenset({1}))
    (losses,) = Design(truth, noise, 4).sweeps(1, np.random.default_rng(1))
    assert losses.shape == (2, 3, 4)
    write_sweep(tmp_path / "trials.csv", losses)
    table = load_trials(str(tmp_path / "trials.csv")).table
    assert len(table) == losses.size
    for (cell, level, seed), loss in np.ndenumerate(losses):
        row = table[
            (table["width"] == 8 * (cell + 1))
            & (table["size"] == level + 1)
            & (table["seed"] == seed + 1)
        ]
        assert row["val_loss"].tolist() == [loss]


def test_only_the_named_levels_have_the_noise_and_a_seed_shifts_all() -> None:
    truth = Truth(((0.0, 0.1, 0.0),), frozenset({2}))
    design = Design(truth, NOISES["stuck runs"], seeds=5_000)
    (losses,) = design.sweeps(1, np.random.default_rng(2))
    first, second, third = losses[0]
    assert (second - first).mean() == pytest.approx(0.1, abs=0.001)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.8, abs=0.02)  # 0.01 and 0.005
    assert (second - first).max() < 0.1 + 0.05
    assert ((third - first) > 0.05).mean() == pytest.approx(0.05, abs=0.01)
