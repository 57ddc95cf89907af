"""`best: any` asks which level is best and pays for the choice; what is said of a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis import AnalysisError, check_claims, conclusions_table, contrasts_table
from analysis.claims.conclusions import conclude
from analysis.claims.contrasts import contrasts_of
from analysis.claims.forecast import chances
from analysis.claims.one_sided import ALPHA
from analysis.figures.contrasts import differences
from analysis.figures.style import fixed_style
from analysis.reports.claim_texts import Link, claim_section, claims_overview, sentences
from tests.analysis.test_conclusions import claim, one, trials_with

WHICH = {"claim": "which kind is best", "factor": "kind", "best": "any"}
BEST_A = {"claim": "a is best", "factor": "kind", "best": "a"}


def noisy(means: dict[str, float], seeds: int = 5, spread: float = 1e-3, seed: int = 0) -> Any:
    """Trials of each kind with two widths."""
    chance = np.random.default_rng(seed)
    return trials_with(
        {
            (kind, width): list(mean + chance.normal(0, spread, seeds))
            for kind, mean in means.items()
            for width in (8, 16)
        }
    )


def test_the_level_that_is_best_in_every_cell_is_named() -> None:
    found = one(WHICH, noisy({"b": 2.0, "a": 1.0, "c": 1.5}))
    assert found.verdict == "SUPPORTED"
    assert found.statement == "which kind is best (kind=a)"
    assert {each.what for each in found.contrasts} == {"a - b", "a - c"}
    assert (found.cells, found.cells_hold) == (2, 2)
    text = " ".join(sentences(found))
    assert "Of 3 levels of kind, a has the lowest mean loss, then c." in text


def test_the_answer_is_in_the_tables_the_report_and_the_title_of_the_figure() -> None:
    found = one(WHICH, noisy({"a": 1.0, "b": 2.0}))
    named = "which kind is best (kind=a)"
    assert set(conclusions_table([found])["claim"]) == {named}
    assert set(contrasts_table([found])["claim"]) == {named}
    assert named in claims_overview([found])
    assert claim_section(1, found, Link("", ""), 9).startswith(f"### 1. {named}\n")
    with fixed_style():
        (figure,) = differences(contrasts_table([found]))
    assert "bars are 95 % intervals" in figure.shows


def test_the_tests_are_those_of_the_named_level_with_p_times_the_number_of_levels() -> None:
    trials = noisy({"a": 1.0, "b": 1.002, "c": 1.5}, seeds=6)
    found, alone = one(WHICH, trials), one(BEST_A, trials)
    assert 0 < alone.decision.supports < 1 / 3
    assert found.decision.supports == pytest.approx(3 * alone.decision.supports)
    assert found.confidence == pytest.approx(1 - 2 * ALPHA / 3)
    assert found.effect.low < alone.effect.low < alone.effect.high < found.effect.high
    assert found.simultaneous.high > found.effect.high


def test_an_interval_ends_at_zero_where_the_test_does() -> None:
    for seed in range(40):
        found = one(WHICH, noisy({"a": 1.0, "b": 1.004, "c": 1.5}, spread=4e-3, seed=seed))
        if found.decision.noise.is_good and found.verdict != "NOT SUPPORTED":
            assert (found.effect.high < 0) == (found.verdict == "SUPPORTED"), seed


@pytest.mark.parametrize("levels", [2, 3])
def test_of_equal_levels_one_is_called_best_at_the_nominal_rate_at_most(levels: int) -> None:
    """The first two are equal, further ones far behind: to choose and test at 5 % would be 10 %."""
    chance, made, sweeps = np.random.default_rng(3), claim(**WHICH), 600
    kinds = "abc"[:levels]
    compared = contrasts_of(made, trials_with({(kind, 8): [0, 1, 2, 3, 4] for kind in kinds}))
    called = uncorrected = 0
    for _ in range(sweeps):
        losses = chance.normal(0, 0.01, (levels, 5)) + np.array([1.0, 1.0, 2.0])[:levels, None]
        by_kind = dict(zip(kinds, losses, strict=True))
        drawn = [
            replace(
                each,
                seeds=(0, 1, 2, 3, 4),
                losses=np.array([by_kind[kind] for kind in each.what.split(" - ")]).T,
                resolution=0.0,
            )
            for each in compared
        ]
        found = conclude(made, drawn)
        called += found.decision.supports < ALPHA
        uncorrected += found.decision.supports / levels < ALPHA
    noise = 3 * (ALPHA * (1 - ALPHA) / sweeps) ** 0.5
    assert 0.01 < called / sweeps < 2 * ALPHA / levels + noise
    assert uncorrected / sweeps > ALPHA + noise


def test_where_two_are_equal_within_the_margin_no_level_is_best() -> None:
    found = one(WHICH, noisy({"a": 1.0, "b": 1.0, "c": 1.5}, spread=1e-4))
    assert found.verdict == "NOT SUPPORTED"
    assert "No level is better than all others by the margin." in " ".join(sentences(found))


def test_where_cells_disagree_no_level_is_best_but_one_may_be_on_average() -> None:
    losses = {
        ("a", 8): [1.0, 1.01, 0.99, 1.012, 0.987],
        ("b", 8): [1.1, 1.115, 1.09, 1.113, 1.081],
        ("a", 16): [1.31, 1.3, 1.29, 1.302, 1.297],
        ("b", 16): [1.2, 1.21, 1.19, 1.222, 1.184],
        ("c", 8): [2.0, 2.01, 1.99, 2.012, 1.987],
        ("c", 16): [2.1, 2.12, 2.09, 2.112, 2.087],
    }
    found = one(WHICH, trials_with(losses))
    assert found.verdict == "NOT SUPPORTED"
    lower_on_average = {**losses, ("b", 8): [loss + 0.4 for loss in losses["b", 8]]}
    found = one({**WHICH, "holds": "on average"}, trials_with(lower_on_average))
    assert (found.verdict, found.statement) == ("SUPPORTED", "which kind is best (kind=a)")


def test_without_evidence_the_two_that_are_nearest_are_named() -> None:
    lowest = [1.0001, 1.0112, 0.9883, 1.0064, 0.9935]
    ahead = [0.0101, -0.0042, 0.0133, 0.0024, 0.0085]
    losses = {("a", 8): lowest, ("b", 8): list(np.add(lowest, ahead)), ("c", 8): [2, 2, 2, 2, 2.1]}
    found = one(WHICH, trials_with(losses))
    assert found.verdict == "UNDERPOWERED"
    assert found.statement == "which kind is best (none is shown, lowest is kind=a)"
    text = " ".join(sentences(found))
    assert "a has the lowest mean loss, then b." in text
    assert found.needed.to_show is not None
    assert chances(found.claim, found.basis, found.needed.to_show, among=3).supported >= 0.8
    assert chances(found.claim, found.basis, found.needed.to_show - 1, among=3).supported < 0.8


def test_a_level_that_lost_a_trial_is_not_best_and_no_other_is() -> None:
    losses = {("a", 8): [1.0, 1.01, 0.99], ("b", 8): [1.5, 1.52, 1.48], ("c", 8): [2, 2.03, 1.97]}
    for kind in "abc":
        found = one(WHICH, trials_with(losses, lost={(kind, 8): 1}))
        assert (found.verdict, found.lost > 0) == ("UNDERPOWERED", True), kind
        assert "lowest is kind=a" in found.statement


def test_levels_restrict_who_is_compared_and_what_it_costs() -> None:
    trials = noisy({"a": 1.0, "b": 1.002, "c": 0.5})
    found = one({**WHICH, "levels": ["a", "b"]}, trials)
    assert {each.what for each in found.contrasts} <= {"a - b", "b - a"}
    assert found.decision.among == 2


def test_a_level_called_any_is_a_list_of_one() -> None:
    trials = noisy({"any": 1.0, "b": 2.0})
    assert one({**WHICH, "best": ["any"]}, trials).statement == "which kind is best"
    assert one({**WHICH, "best": ["any"]}, trials).verdict == "SUPPORTED"
    assert one(WHICH, trials).statement == "which kind is best (kind=any)"
    with pytest.raises(AnalysisError, match=r"claims\[0\]\.best: no trial .* kind=any; there are"):
        check_claims(noisy({"a": 1.0, "b": 2.0}), [{**WHICH, "best": ["any"]}])


def test_that_no_level_is_best_is_no_claim_of_this_form() -> None:
    with pytest.raises(AnalysisError, match=r"claims\[0\]: `best: any` holds in every cell or on"):
        check_claims(noisy({"a": 1.0, "b": 2.0}), [{**WHICH, "holds": "not in every cell"}])


def test_one_seed_names_the_lowest_and_is_underpowered() -> None:
    found = one(WHICH, trials_with({("a", 8): [1.0], ("b", 8): [2.0], ("c", 8): [3.0]}))
    assert (found.verdict, found.cells_hold) == ("UNDERPOWERED", 1)
    assert "lowest is kind=a" in found.statement


def test_a_wider_interval_for_all_cells_does_not_contradict_a_verdict() -> None:
    losses = {("a", 8): [1.0, 1.0], ("b", 8): [1.018, 1.022]}
    losses |= {("a", width): [1.0, 1.0] for width in (16, 32)}
    losses |= {("b", width): [1.1, 1.11] for width in (16, 32)}
    found = one(
        {"claim": "a is better", "factor": "kind", "order": ["a", "b"]}, trials_with(losses)
    )
    assert found.verdict == "SUPPORTED"
    assert found.simultaneous.low < 0 < found.simultaneous.high
    assert "It may contain zero: each of them is tested by itself" in " ".join(sentences(found))
    clear = one({"claim": "a", "factor": "kind", "order": ["a", "b"]}, noisy({"a": 1.0, "b": 2.0}))
    assert clear.verdict == "SUPPORTED"
    assert "It may contain zero" not in " ".join(sentences(clear))


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ({"a": 1.0, "b": 2.0}, "The nearest to a counterexample is"),
        ({"a": 2.0, "b": 1.0}, "The strongest counterexample is"),
    ],
)
def test_only_what_counters_a_comparison_is_called_a_counterexample(
    means: dict[str, float], said: str
) -> None:
    order = {"claim": "not always", "factor": "kind", "order": ["a", "b"]}
    found = one(order | {"holds": "not in every cell"}, noisy(means))
    assert said in " ".join(sentences(found))
