"""The studies of a search: winners, effort, best so far and Pareto front, counted by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from analysis import AnalysisError
from analysis.results.studies import best_so_far, pareto_front, suggestions, winners
from analysis.trials.search_record import Space
from tests.analysis.tuned import confirmed, run, suggested, sweep

ROPE, SINPE = "attention pe_type=rope", "attention pe_type=sinpe"


def tried(rate: float, schedule: str = "constant", warmup: int = 0, pe_type: str = "rope") -> Any:
    return {
        "pe_type": pe_type, "learning_rate": rate, "schedule": schedule, "warmup_steps": warmup,
    }  # fmt: skip


# Seven suggestions of one study, in another order than their numbers'.
RUNS = [
    suggested(ROPE, 3, tried(0.010, "cosine", 50), 2.30),
    suggested(ROPE, 0, tried(0.001), 2.60),
    suggested(ROPE, 1, tried(0.100), 3.10, stopped="asha: at step 100", rung=100),
    suggested(ROPE, 2, tried(0.050, "cosine", 99), None, status="FAILED", rung=300),
    suggested(ROPE, 4, tried(0.012), 2.45),
    suggested(ROPE, 5, tried(0.013), 2.99, stopped="asha: at step 300", rung=300),
    suggested(ROPE, 6, tried(0.014), 2.40, status="RUNNING", rung=500),
]


def test_the_best_so_far_counts_the_steps_of_what_was_stopped() -> None:
    table = best_so_far(sweep(RUNS))
    assert list(table["suggestion"]) == [0, 1, 2, 3, 4, 5, 6]
    assert list(table["steps"]) == [1000, 1100, 1400, 2400, 3400, 3700, 4200]
    assert list(table["best"]) == [2.60, 2.60, 2.60, 2.30, 2.30, 2.30, 2.30]
    assert list(table["val_loss"].isna()) == [False, True, True, False, False, True, True]
    names = ["finished", "stopped", "failed", "finished", "finished", "stopped", "unfinished"]
    assert list(table["outcome"]) == names


def test_a_winner_has_its_own_numbers_and_apart_those_of_fresh_seeds() -> None:
    runs = [
        *RUNS,
        *confirmed(ROPE, tried(0.010, "cosine", 50), [2.40, 2.44, 2.48]),
        *confirmed(ROPE, tried(0.012), [2.0, 2.0, 2.0], rank=2),
    ]
    (row,) = winners(sweep(runs)).to_dict("records")
    assert (row["study"], row["learning_rate"], row["schedule"]) == (ROPE, 0.01, "cosine")
    assert (row["search_loss"], row["search_n"], row["n"]) == (2.30, 1, 3)
    assert row["val_loss"] == pytest.approx(2.44)
    half = 4.302653 * 0.04 / 3**0.5  # t(0.975, 2), standard deviation
    assert (row["low"], row["high"]) == pytest.approx((2.44 - half, 2.44 + half), abs=1e-6)
    assert (row["suggestions"], row["finished"], row["stopped"], row["failed"]) == (7, 3, 2, 1)
    assert (row["steps"], row["full_steps"]) == (4200, 5800)  # 3 and 2 whole, 300 and 500 reached
    assert row["edges"] == ""
    assert len(row["run_ids"].split("stage=confirm")) == 4


def test_the_winner_is_whom_the_search_chose_which_need_not_have_the_lowest_loss() -> None:
    runs = [*RUNS, *confirmed(ROPE, tried(0.012), [2.5, 2.6])]
    (row,) = winners(sweep(runs)).to_dict("records")
    assert (row["learning_rate"], row["search_loss"]) == (0.012, 2.45)


def test_until_it_is_confirmed_the_best_suggestion_leads() -> None:
    runs = [suggested(SINPE, 0, tried(0.0012, pe_type="sinpe"), None, status="FAILED")]
    table = winners(sweep([*RUNS, *runs]))
    assert list(table["study"]) == [ROPE, SINPE]
    assert list(table["search_loss"].fillna(-1)) == [2.30, -1]
    assert table["val_loss"].isna().all()
    assert list(table["n"]) == [0, 0]
    assert pd.isna(table["learning_rate"][1])


def test_seeds_of_a_suggestion_are_taken_together() -> None:
    runs = [
        suggested(ROPE, number, {**tried(rate), "seed": seed}, loss, **more)
        for number, rate, seed, loss, more in [
            (0, 0.01, 1, 2.0, {}),
            (0, 0.01, 2, 3.0, {}),
            (1, 0.02, 1, 1.0, {}),
            (1, 0.02, 2, 4.0, {"stopped": "asha", "rung": 100}),
        ]
    ]
    table = suggestions(sweep(runs))
    assert list(table["n"]) == [2, 2]
    assert list(table["outcome"]) == ["finished", "stopped"]
    assert table["val_loss"][0] == 2.5
    assert math.isnan(table["val_loss"][1])
    assert list(table["steps"]) == [2000, 1100]
    (row,) = winners(sweep(runs)).to_dict("records")
    assert (row["search_loss"], row["search_n"]) == (2.5, 2)


def test_a_setting_without_effect_is_blank() -> None:
    table = suggestions(sweep(RUNS)).set_index("suggestion")
    assert table.loc[3, "warmup_steps"] == 50
    assert table["warmup_steps"].isna().sum() == 5  # of the constant schedules
    assert "max_steps" not in table


@pytest.mark.parametrize(
    ("rate", "warmup", "edges"),
    [
        (0.01, 50, ""),  # the middle of 0.001 to 0.1, by ratio
        (0.0012, 50, "learning_rate: low edge"),  # 4 % of two decades
        (0.0013, 50, ""),  # 6 %; by difference it would be 0.3 %
        (0.08, 96, "learning_rate: high edge, warmup_steps: high edge"),
        (0.05, 4, "warmup_steps: low edge"),
    ],
)
def test_an_optimum_at_an_edge_of_its_range_is_told(rate: float, warmup: int, edges: str) -> None:
    (row,) = winners(sweep([suggested(ROPE, 0, tried(rate, "cosine", warmup), 2.0)])).to_dict(
        "records"
    )
    assert row["edges"] == edges


def test_choices_have_no_edge_and_ranges_are_written_as_people_read_them() -> None:
    assert Space.of(["constant", "cosine"]).edge("constant") == ""
    assert Space.of([1, 2]).edge(1) == ""
    assert str(Space.of(["constant", "cosine"])) == "constant, cosine"
    assert str(Space.of({"low": 1e-3, "high": 0.1, "log": True})) == "0.001 to 0.1 (log)"
    when = {"low": 0, "high": 8, "log": False, "step": 2, "when": {"schedule": ["cosine"]}}
    assert str(Space.of(when)) == "0 to 8 by 2 with schedule=cosine"


def test_the_pareto_front_of_a_case_made_by_hand() -> None:
    points = [(9, 1), (5, 2), (4, 2), (4, 3), (6, 4), (1, 5)]  # loss, parameters
    runs = [
        suggested(ROPE, i, tried(0.01 + i / 100), loss, parameters=size)
        for i, (loss, size) in enumerate(points)
    ]
    trials = sweep(runs, objectives=["val_loss", "parameters"])
    assert list(pareto_front(trials)["suggestion"]) == [5, 2, 0]
    assert pareto_front(sweep(runs)).empty
    assert pareto_front(sweep(RUNS, objectives=["val_loss", "parameters"])).empty  # not known


def test_a_plain_sweep_has_no_studies() -> None:
    plain = sweep([run({"n_embd": 8, "seed": 1}, 2.0)])
    assert suggestions(plain).empty
    assert winners(plain).empty
    assert best_so_far(plain).empty


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(AnalysisError, match="the tag 'suggestion' is no whole number"):
        sweep([suggested(ROPE, "two", tried(0.01), 2.0)])  # type: ignore[arg-type]
