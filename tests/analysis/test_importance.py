"""Importance of settings, held against objectives of which it is known what matters."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, Trials
from analysis.results.importances import ALL, WITHIN, importance, samples
from tests.analysis.test_figures import trials
from tests.analysis.tuned import SEARCH, SPACE, run, suggested, sweep

LABELS = {"rope": "attention pe_type=rope", "sinpe": "attention pe_type=sinpe"}


def searched(count: int = 40, offset: float = 0.0) -> Trials:
    """Only the rate matters within a study: the squared distance of its logarithm from -2.

    ``offset`` is what sinpe loses against rope.
    """
    chance = np.random.default_rng(0)
    runs = []
    for number in range(count):
        pe_type = ("rope", "sinpe")[number % 2]
        schedule = str(chance.choice(["constant", "cosine"]))
        warmup = int(chance.integers(1, 100)) if schedule == "cosine" else 0
        rate = 10 ** chance.uniform(-3, -1)
        loss = 2 + (np.log10(rate) + 2) ** 2 + offset * (pe_type == "sinpe")
        tuned = {"learning_rate": rate, "schedule": schedule, "warmup_steps": warmup}
        runs.append(suggested(LABELS[pe_type], number // 2, {"pe_type": pe_type, **tuned}, loss))
    return sweep(runs)


def test_what_alone_explains_everything_has_importance_near_one() -> None:
    table = importance(searched()).set_index(["scope", "setting"])
    assert table.loc[(ALL, "learning_rate"), ["fANOVA", "PED-ANOVA"]].min() > 0.85
    assert table.loc[(WITHIN, "learning_rate"), ["fANOVA", "PED-ANOVA"]].min() > 0.85
    everywhere = table[table["trials"] == 40]
    assert everywhere.loc[ALL, ["fANOVA", "PED-ANOVA"]].sum().tolist() == pytest.approx([1, 1])


def test_a_logarithmic_range_is_explained_by_ratios() -> None:
    by_rate = searched()
    exponents = np.log10(by_rate.table["learning_rate"].astype(float))
    space = {**SPACE, "learning_rate": {"low": -3, "high": -1, "log": False, "step": None}}
    about = {"search": json.dumps({**SEARCH, "spaces": [space]})}
    table = by_rate.table.assign(learning_rate=exponents)
    by_exponent = Trials("tuned", table, by_rate.params, about)
    pd.testing.assert_frame_equal(importance(by_rate), importance(by_exponent))


def test_what_differs_between_studies_is_taken_away_within_them() -> None:
    table = importance(searched(offset=50.0)).set_index(["scope", "setting"])
    assert table.loc[(ALL, "pe_type"), "fANOVA"] > 0.95
    assert (WITHIN, "pe_type") not in table.index
    assert table.loc[(WITHIN, "learning_rate"), "fANOVA"] > 0.85
    _, within = samples(searched(offset=50.0))
    assert within.rows.groupby("study")["val_loss"].median().abs().max() < 1e-12


def test_a_setting_without_effect_elsewhere_is_measured_where_it_has_one() -> None:
    trials = searched(60)
    cosine = (trials.table["schedule"] == "cosine").sum()
    table = importance(trials).set_index(["scope", "setting"])
    assert 20 < cosine < 60
    assert table.loc[(ALL, "warmup_steps"), "trials"] == cosine
    assert table.loc[(ALL, "schedule"), "trials"] == 60
    assert table.loc[(ALL, "warmup_steps"), "fANOVA"] < 0.15


def test_the_same_runs_give_the_same_numbers_in_any_order() -> None:
    trials = searched()
    shuffled = Trials(trials.experiment, trials.table[::-1], trials.params, trials.sweep)
    assert importance(trials).equals(importance(shuffled))


def test_what_was_stopped_or_failed_explains_nothing() -> None:
    trials = searched()
    bad = [
        suggested(LABELS["rope"], 90 + i, {"pe_type": "rope", "learning_rate": 0.01}, 99.0, **more)
        for i, more in enumerate([{"stopped": "asha"}, {"status": "FAILED"}])
    ]
    table = sweep(bad).table
    assert len(samples(trials)[0].rows) == 40
    both = Trials("tuned", pd.concat([trials.table, table]), trials.params, trials.sweep)
    assert len(samples(both)[0].rows) == 40


def test_a_plain_grid_is_explained_too_and_few_trials_are_not() -> None:
    grid = [
        run({"learning_rate": rate, "n_embd": width, "seed": seed}, width / 100 + seed / 1e6)
        for rate in (0.001, 0.01)
        for width in (8, 16, 32)
        for seed in range(4)
    ]
    table = importance(sweep(grid, arms=[None])).set_index("setting")
    assert list(table["scope"]) == [ALL, ALL]
    assert table.loc["n_embd", ["fANOVA", "PED-ANOVA"]].min() > 0.9
    with pytest.raises(AnalysisError, match="has 19 trials, and what varies among them is: n_embd"):
        importance(sweep(grid[:19]))
    with pytest.raises(AnalysisError, match=r"24 trials.*them is: n_embd$"):
        importance(sweep([r for r in grid * 2 if r.data.params["learning_rate"] == "0.01"]))


def test_a_setting_of_many_words_is_left_out_as_it_would_take_minutes() -> None:
    rows = [
        {"word": f"w{i % 16}", "width": i % 3, "rate": i % 7, "val_loss": 2.0 + i % 5}
        for i in range(48)
    ]
    assert set(importance(trials(rows))["setting"]) == {"width", "rate"}
