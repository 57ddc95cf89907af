"""The figures: what is drawn of which data, held against numbers counted by hand."""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from analysis.figures import style
from analysis.figures.contrasts import kind, weakest
from analysis.figures.data import (
    ceiling,
    configurations_to_draw,
    learning_curves,
    pareto,
    spread,
    thinned,
)
from analysis.figures.report_figures import figures, overview_figure
from analysis.figures.trials import cost
from analysis.results.importances import importance, samples
from analysis.text.document import Figure
from analysis.trials.table import METRICS, Trials

COLUMNS = ["claim", "claim_index", "cell", "what", "mean", "low", "high", "n", "verdict",
           "favoured", "confidence"]  # fmt: skip
NO_CURVES = pd.DataFrame(columns=["run_id", "step", "val_loss"])
NO_CONTRASTS = pd.DataFrame()
KNOWN = {"status": "FINISHED", "stage": "", "stopped": "", "hardware": "a CPU"}


def trials(rows: list[dict[str, Any]]) -> Trials:
    table = pd.DataFrame(rows)
    params = [name for name in table if name not in {*METRICS, *KNOWN}]
    for name in params:
        if pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].convert_dtypes()
    for name, value in {**dict.fromkeys(METRICS, math.nan), **KNOWN}.items():
        if name not in table:
            table[name] = value
    return Trials("study", table.assign(run_id=[f"r{i}" for i in table.index]), tuple(params))


def curves_of(some: Trials, steps: int = 4) -> pd.DataFrame:
    rows = [
        (row["run_id"], 100 * step, row["val_loss"] + 1 / step)
        for row in some.table.to_dict("records")
        for step in range(1, steps + 1)
    ]
    return pd.DataFrame(rows, columns=["run_id", "step", "val_loss"])


def grid(seeds: int = 2) -> Trials:
    """Two encodings, two widths, three blocks, as the study; and two models without encodings."""
    rows: list[dict[str, Any]] = []
    for seed, pe_type, width, block in itertools.product(
        range(seeds), ["rope", "sinpe"], [64, 128], [8, 16, 32]
    ):
        loss = 2.5 - block / 1000 - width / 10_000 + 0.05 * (pe_type == "sinpe") + seed / 100
        rows.append(
            {"variant": "attention", "pe_type": pe_type, "n_embd": width, "block_size": block,
             "seed": seed, "val_loss": loss, "training_seconds": float(width + block)}
        )  # fmt: skip
    for seed in range(seeds):
        rows.append({"variant": "bigram", "block_size": 8, "seed": seed, "val_loss": 2.6})
        factorized = {"variant": "factorized", "n_embd": 384, "block_size": 8}
        rows.append({**factorized, "seed": seed, "val_loss": 2.61})
    return trials(rows)


def contrasts(count: int = 3, claim: int = 1) -> pd.DataFrame:
    rows = [
        ("it falls", claim, f"n_embd={i}", "a - b", -i / 100, -i / 100 - 0.01, -i / 100 + 0.01, 5,
         "borne out", "negative", 0.9)
        for i in range(count)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    some = grid()
    return dict(figures(some, curves_of(some), pd.concat([contrasts(), contrasts(2, claim=2)])))


def test_a_study_has_all_figures_but_that_of_a_search(drawn: dict[str, Any]) -> None:
    assert list(drawn) == [
        "loss_by_block_size",
        "heatmap",
        "differences_1",
        "differences_2",
        "curves",
        "cost",
    ]
    assert all(name == figure.name for name, figure in drawn.items())


def test_each_figure_is_well_formed_small_and_told_in_one_line(drawn: dict[str, Any]) -> None:
    for figure in drawn.values():
        assert ElementTree.fromstring(figure.svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(figure.svg) < 300_000
        assert figure.png.startswith(b"\x89PNG")
        assert struct.unpack(">II", figure.png[16:24]) > (600, 300)  # pixels
        assert "\n" not in figure.shows
        assert figure.shows.endswith(".")


def test_the_same_data_give_the_same_bytes_whatever_the_users_settings(
    drawn: dict[str, Any],
) -> None:
    some = grid()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": "x"}):
        again = figures(some, curves_of(some), contrasts())
        assert matplotlib.rcParams["font.size"] == 20  # the user's settings are back
    assert set(drawn) - set(again) == {"differences_2"}
    for name, figure in again.items():
        assert figure == drawn[name]
        assert b"<dc:date>" not in figure.svg
        assert b"Software" not in figure.png


def words(count: int) -> Trials:
    """Models that differ in nothing that has an axis."""
    return trials(
        [
            {"variant": f"model {i}", "seed": 0, "val_loss": 2.0 + i, "training_seconds": 1.0 + i}
            for i in range(count)
        ]
    )


@pytest.mark.parametrize(
    ("some", "name"), [(grid(), "loss_by_block_size"), (words(3), "cost"), (words(1), None)]
)
def test_the_picture_of_a_sweep_shows_what_it_varies_and_fits_on_a_page(
    some: Trials, name: str | None
) -> None:
    picture = overview_figure(some)
    assert (picture.name if picture else None) == name
    if picture:
        width, _ = struct.unpack(">II", picture.png[16:24])
        assert 400 < width <= 562, "MLflow shows it at its own size, beside a column"
        assert figures(some, NO_CURVES, NO_CONTRASTS)[picture.name].png != picture.png


def test_what_is_too_far_out_to_be_drawn_takes_no_room_on_the_axis_of_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []
    as_figure = style.as_figure

    def keep(name: str, shows: str, canvas: Any) -> Figure:
        drawn.append(canvas)
        return as_figure(name, shows, canvas)

    monkeypatch.setattr("analysis.figures.trials.as_figure", keep)
    losses = [9.0, *(2.0 - i / 100 for i in range(1, 8))]
    rows = [
        {"variant": f"model {i}", "seed": 0, "val_loss": loss, "training_seconds": 10.0 ** (i + 3)}
        for i, loss in enumerate(losses)
    ]
    rows[0]["training_seconds"] = 0.01
    shown = configurations_to_draw(trials(rows))
    assert shown is not None
    figure = cost(shown)
    assert figure is not None
    assert "The best 7 of 8 configurations" in figure.shows
    low, high = drawn[0].axes[0].get_xlim()
    assert 1e3 < low < 1e4
    assert 1e10 < high < 1e11


def test_the_axes_are_those_of_the_published_study() -> None:
    shown = configurations_to_draw(grid())
    assert shown
    assert (shown.x, shown.facet, shown.labelled_by) == ("block_size", "n_embd", "pe_type")
    assert len(shown.grid) == 12
    assert shown.labels == ["rope", "sinpe", "bigram", "factorized"]
    # factorized has a width and a block, but no line to be on
    assert list(shown.references["name"]) == [
        "bigram block_size=8",
        "factorized n_embd=384 block_size=8",
    ]


def test_means_and_intervals_are_those_counted_by_hand() -> None:
    rows = [{"width": 8, "seed": i, "val_loss": x} for i, x in enumerate([1.0, 2.0, 3.0])]
    shown = configurations_to_draw(trials([*rows, {"width": 16, "seed": 0, "val_loss": 5.0}]))
    assert shown
    table = shown.intervals(shown.grid.sort_values("width").index)
    # t(0.975, 2) = 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3)
    half = 4.302653 / math.sqrt(3)
    first, second = table.to_dict("records")
    assert first == pytest.approx({"mean": 2.0, "low": 2 - half, "high": 2 + half, "n": 3})
    assert (second["mean"], second["n"]) == (5.0, 1)
    assert math.isnan(second["low"])


def test_one_seed_has_no_interval_and_says_so() -> None:
    some = trials([{"lr": lr, "seed": 0, "val_loss": 2.0} for lr in (1, 2)])
    [figure] = figures(some, NO_CURVES, NO_CONTRASTS).values()
    assert "with one seed there is no interval" in figure.shows
    assert "t intervals" not in figure.shows


def test_of_what_has_no_axis_the_best_is_drawn_and_named() -> None:
    rows = [
        {"n_embd": n, "block_size": b, "rate": rate, "seed": 0, "val_loss": n / 10 + b + rate}
        for n, b, rate in itertools.product([1, 2, 3], [8, 16], [0.1, 0.2])
    ]
    shown = configurations_to_draw(trials(rows))
    assert shown
    assert (shown.x, shown.facet, shown.others) == ("block_size", "n_embd", ("rate",))
    assert set(shown.grid["rate"]) == {0.1}
    assert shown.references.empty  # the worse rate has a place, taken by the better one


def test_learning_curves_leave_out_steps_that_a_seed_lacks() -> None:
    some = trials([{"lr": 1, "seed": seed, "val_loss": 1.0} for seed in (0, 1)])
    shown = configurations_to_draw(some)
    assert shown
    points = pd.DataFrame(
        [("r0", 1, 3.0), ("r1", 1, 5.0), ("r0", 2, 2.0), ("r0", 3, 2.0), ("r1", 3, math.nan)],
        columns=["run_id", "step", "val_loss"],
    )
    [row] = learning_curves(shown, points).to_dict("records")
    assert row == {"configuration": 0, "step": 1, "mean": 4.0, "low": 3.0, "high": 5.0, "n": 2}


def test_the_pareto_front_of_a_case_made_by_hand() -> None:
    points = [(1, 9), (2, 5), (2, 4), (3, 4), (4, 6), (5, 1), (5, 1)]
    table = pd.DataFrame(points, columns=["s", "loss"])
    assert list(pareto(table, ["s", "loss"]).index) == [0, 2, 5]


def test_spread_keeps_both_ends() -> None:
    assert spread(range(11), 3) == [0, 5, 10]
    assert spread([1, 2], 3) == [1, 2]
    assert list(thinned(pd.DataFrame({"step": range(1000)}), 4)["step"]) == [0, 333, 666, 999]


def test_what_diverged_does_not_set_the_frame() -> None:
    assert ceiling([2.3, 2.4, 2.5, 2.4, 31.0]) == 2.5
    assert ceiling([2.3, 2.35, 2.4, 2.6]) == 2.6
    assert ceiling([2.0]) == 2.0


def test_the_weakest_differences_stay_in_their_order() -> None:
    rows = pd.DataFrame({"mean": [-0.3, 0.1, -0.2, 0.0]})
    assert list(weakest(rows, 3)["mean"]) == [0.1, -0.2, 0.0]
    found = figures(trials([{"seed": 0, "val_loss": 1.0}]), NO_CURVES, contrasts(60))
    assert list(found) == ["differences_1"]
    assert "The 48 weakest of 60 differences are drawn." in found["differences_1"].shows


def test_of_many_learning_curves_the_best_are_drawn() -> None:
    some = trials([{"variant": f"v{i}", "seed": 0, "val_loss": float(i)} for i in range(30)])
    shows = figures(some, curves_of(some), NO_CONTRASTS)["curves"].shows
    assert "8 of 30 configurations are drawn, the best." in shows


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-2.0, -1.0, "below zero"),
        (-1.0, 0.0, "contains zero"),
        (0.1, 0.2, "above zero"),
        (math.nan, math.nan, "no interval"),
    ],
)
def test_what_an_interval_says(low: float, high: float, expected: str) -> None:
    assert kind(low, high) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"lr": 1, "seed": 0, "status": "FAILED"}], []),
        ([{"lr": 1, "seed": 0, "val_loss": 2.0}], ["curves"]),
        ([{"variant": v, "seed": 0, "val_loss": 2.0} for v in "ab"], ["curves"]),
        ([{"lr": lr, "seed": 0, "val_loss": 2.0} for lr in (1, 2)], ["loss_by_lr", "curves"]),
        (
            [{"variant": v, "val_loss": 2.0, "training_seconds": 1.0} for v in "ab"],
            ["curves", "cost"],
        ),
    ],
    ids=["failed", "one configuration", "words only", "one number", "with times"],
)
def test_what_the_data_do_not_allow_is_left_out(
    rows: list[dict[str, Any]], expected: list[str]
) -> None:
    some = trials(rows)
    assert list(figures(some, curves_of(some), NO_CONTRASTS)) == expected


def search(count: int) -> Trials:
    """Only the rate matters: the loss is the square of its distance from 0.01, in decades."""
    rng = np.random.default_rng(0)
    rows = [
        {"rate": 10 ** rng.uniform(-4, 0), "width": int(rng.choice([32, 64, 128])),
         "pe_type": str(rng.choice(["rope", "sinpe"])), "stage": "search"}
        for _ in range(count)
    ]  # fmt: skip
    return trials([{**row, "val_loss": 2 + (math.log10(row["rate"]) + 2) ** 2} for row in rows])


def test_importance_finds_the_one_setting_that_matters() -> None:
    some = search(40)
    table = importance(some).set_index("setting")[["fANOVA", "PED-ANOVA"]]
    assert set(table.index) == {"rate", "width", "pe_type"}
    assert (table.loc["rate"] > 0.6).all()
    assert table.sum().tolist() == pytest.approx([1, 1])
    found = figures(some, NO_CURVES, NO_CONTRASTS)
    assert list(found) == ["importance"]  # what a search picked bears on no conclusion
    assert "tests nothing" in found["importance"].shows


def test_importance_wants_twenty_trials() -> None:
    assert samples(search(19)) == []
    some = search(40)
    lacks = some.table.assign(width=some.table["width"].where(some.table.index < 25))
    table = importance(Trials("study", lacks, some.params)).set_index("setting")
    assert dict(table["trials"]) == {"rate": 40, "pe_type": 40, "width": 25}
    assert list(figures(search(19), NO_CURVES, NO_CONTRASTS)) == []
