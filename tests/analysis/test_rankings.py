"""The ranking tables, held against the published ones and against small ones made by hand."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import (
    AnalysisError,
    Trials,
    markdown,
    pivot,
    rankings,
    tables,
    trials_of,
    write_tables,
)
from analysis.command import main
from analysis.reports.ranking_texts import grid, means_in_words, not_ranked, ranking_text
from analysis.results.published import PUBLISHED as PUBLISHED_TABLE
from analysis.results.ranking import level_means

# The published attention losses for n_embd 64 and 128, in the order of the published table.
PUBLISHED = """
rope 128 64 2.34159|rope 128 32 2.35512|rope 128 16 2.3811|rope 128 8 2.40827
rope 64 64 2.35685|rope 64 32 2.36591|rope 64 16 2.37046|rope 64 8 2.40226
sinpe 128 64 2.39416|sinpe 128 32 2.40295|sinpe 128 16 2.41932|sinpe 128 8 2.43876
sinpe 64 64 2.39928|sinpe 64 32 2.40418|sinpe 64 16 2.40813|sinpe 64 8 2.43779
randn 64 16 2.44766|randn 64 8 2.46126|randn 64 32 2.46568|randn 64 64 2.47043
randn 128 32 2.46413|randn 128 16 2.46648|randn 128 8 2.46785|randn 128 64 2.4764
"""


def run(number: int, status: str = "FINISHED", val_loss: float | None = None, **params: Any) -> Any:
    metrics = {} if val_loss is None else {"val_loss": val_loss, "train_loss": val_loss - 0.1}
    return SimpleNamespace(
        info=SimpleNamespace(run_id=f"run{number}", run_name=f"trial {number}", status=status),
        data=SimpleNamespace(
            tags={"key": f"key{number}"},
            params={name: str(value) for name, value in params.items()},
            metrics=metrics,
        ),
    )


@pytest.fixture
def published() -> Trials:
    rows = [row.split() for row in PUBLISHED.replace("\n", "|").split("|") if row]
    runs = [
        run(i, val_loss=float(loss), variant="attention", pe_type=pe_type, n_embd=n_embd,
            block_size=block_size)
        for i, (pe_type, n_embd, block_size, loss) in enumerate(rows)
    ]  # fmt: skip
    runs += [
        run(98, val_loss=2.48322, variant="bigram", block_size=8),
        run(99, val_loss=2.50986, variant="factorized", n_embd=384, block_size=8),
    ]
    return trials_of("study", list(reversed(runs)))


def cells(table: pd.DataFrame) -> list[str]:
    names = ["pe_type", "n_embd", "block_size", "val_loss"]
    return [" ".join(map(str, row)) for row in table[names].itertuples(index=False)]


def test_the_pivot_by_block_size_is_the_published_table_row_by_row(published: Trials) -> None:
    expected = [row for row in PUBLISHED.replace("\n", "|").split("|") if row]
    assert cells(pivot(published, "block_size")) == expected


def test_the_pivot_by_n_embd_groups_what_differs_in_nothing_else(published: Trials) -> None:
    table = pivot(published, "n_embd")
    assert cells(table)[:4] == [
        "rope 128 64 2.34159",
        "rope 64 64 2.35685",
        "rope 128 32 2.35512",
        "rope 64 32 2.36591",
    ]
    assert list(table.columns[:4]) == ["variant", "pe_type", "block_size", "n_embd"]
    assert len(table) == 24  # bigram and factorized have no other width to be compared with


def test_the_ranking_has_every_finished_trial_best_first(published: Trials) -> None:
    table = rankings(published)
    assert list(table["rank"]) == list(range(1, 27))
    assert table["val_loss"].is_monotonic_increasing
    assert list(table.columns[:5]) == ["rank", "variant", "pe_type", "n_embd", "block_size"]
    assert list(table["variant"])[-2:] == ["bigram", "factorized"]


def test_what_is_not_finished_is_not_ranked() -> None:
    runs = [
        run(0, val_loss=3.0, lr=0.1),
        run(1, "FAILED", val_loss=0.5, lr=0.2),
        run(2, "RUNNING", val_loss=0.4, lr=0.3),
        run(3, "KILLED", lr=0.4),
    ]
    assert list(rankings(trials_of("study", runs))["run_ids"]) == ["run0"]
    with pytest.raises(AnalysisError, match="no trial of 'study' is finished"):
        rankings(trials_of("study", runs[1:]))


def test_the_default_pivots_are_the_numbers_that_differ(published: Trials) -> None:
    assert list(tables(published)) == ["ranking", "by_n_embd", "by_block_size"]
    assert list(tables(published, ["pe_type"])) == ["ranking", "by_pe_type"]


def test_seeds_of_a_configuration_are_a_row_with_their_mean_and_interval() -> None:
    losses = {0.1: (2.0, 2.1, 2.3), 0.01: (1.0, 1.2)}
    runs = [
        run(10 * i + seed, val_loss=loss, variant="own:Net", learning_rate=rate, seed=9 - seed)
        for i, (rate, several) in enumerate(losses.items())
        for seed, loss in enumerate(several)
    ]
    runs.append(run(99, "FAILED", variant="own:Net", learning_rate=0.01, seed=5))
    named = tables(trials_of("study", runs))
    assert list(named) == ["ranking", "by_learning_rate"]
    best, worst = named["ranking"].to_dict("records")
    assert (best["learning_rate"], best["n"], best["left_out"]) == (0.01, 2, 1)
    assert (worst["learning_rate"], worst["n"], worst["left_out"]) == (0.1, 3, 0)
    assert best["val_loss"] == pytest.approx(1.1)
    assert worst["train_loss"] == pytest.approx(6.4 / 3 - 0.1)
    half = 12.7062 * 0.1414214 / 2**0.5  # t(0.975, 1 degree of freedom), standard deviation
    assert (best["low"], best["high"]) == pytest.approx((1.1 - half, 1.1 + half), abs=1e-4)
    assert best["run_ids"] == "run11 run10"  # by seed
    assert " low |" in markdown(named["ranking"])
    assert "left_out" in markdown(named["ranking"])


def test_what_stopped_early_is_counted_but_not_averaged() -> None:
    runs = [run(i, val_loss=2.0 + i, n_embd=8, seed=i) for i in range(3)]
    runs[2].data.tags["stopped"] = "median stopping at step 500"
    (row,) = rankings(trials_of("study", runs)).to_dict("records")
    assert (row["n"], row["val_loss"], row["left_out"]) == (2, 2.5, 1)


def test_what_a_search_suggested_is_ranked_apart() -> None:
    runs = [run(i, val_loss=2.0 + i, n_embd=8, seed=i) for i in range(4)]
    runs[0].data.tags["stage"] = "search"
    trials = trials_of("study", runs)
    assert list(rankings(trials)["n"]) == [3, 1]
    assert list(rankings(trials)["stage"]) == ["", "search"]
    assert list(rankings(trials)["rank"]) == [1, 1]
    assert len(trials.comparable) == 3
    assert list(trials.left_out["why"]) == ["suggested by a search"]


def test_one_setting_alone_is_one_group() -> None:
    runs = [run(i, val_loss=loss, n_embd=n) for i, (n, loss) in enumerate([(8, 2.0), (16, 1.0)])]
    assert list(pivot(trials_of("study", runs), "n_embd")["n_embd"]) == [16, 8]


def test_a_pivot_needs_a_setting_that_differs(published: Trials) -> None:
    with pytest.raises(AnalysisError, match=r"'seed' does not differ.*variant, pe_type"):
        pivot(published, "seed")


def test_an_experiment_without_trials_is_refused() -> None:
    with pytest.raises(AnalysisError, match="'study' has no trials"):
        trials_of("study", [])


def test_csv_keeps_all_digits_and_markdown_five(tmp_path: Path) -> None:
    loss = 2.3456789012345678
    named = tables(trials_of("study", [run(0, val_loss=loss, depth=1), run(1, val_loss=3.0)]))
    write_tables(named, tmp_path / "new")
    assert pd.read_csv(tmp_path / "new/ranking.csv")["val_loss"][0] == loss
    text = (tmp_path / "new/ranking.md").read_text()
    assert text == markdown(named["ranking"])
    assert " 2.34568 |" in text
    assert "nan" not in text


def test_a_setting_does_not_hide_what_became_of_a_run() -> None:
    settings = {"stopped": "no", "stage": 2, "run_id": "x", "n": 3}
    trials = trials_of("study", [run(0, val_loss=1.0, **settings), run(1, val_loss=2.0)])
    assert list(trials.finished["run_id"]) == ["run0", "run1"]
    assert len(trials.comparable) == 2
    assert set(trials.settings) == {
        "stopped_setting",
        "stage_setting",
        "run_id_setting",
        "n_setting",
    }


def printed(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["rankings", *map(str, arguments)])


def test_a_terminal_shows_one_screen_and_how_much_more_there_is(tmp_path: Path) -> None:
    done = printed(PUBLISHED_TABLE, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    head = lines.index(next(line for line in lines if line.startswith("rank ")))
    assert lines[head + 1].split() == ["1", "attention", "rope", "128", "64", "1", "2.34159"]
    assert lines[head + 21] == (
        "The first 20 of 38 configurations; --markdown and --csv print all."
    )
    assert len(lines) <= 40
    assert "|" not in done.stdout
    assert str(tmp_path / "by_n_embd.md") in done.stderr.splitlines()


def test_a_pivot_is_a_grid_with_the_best_of_each_row_marked(published: Trials) -> None:
    cells = grid(pivot(published, "block_size"))
    names = [f"block_size={size}" for size in (8, 16, 32, 64)]
    assert list(cells.columns) == ["pe_type", "n_embd", *names]  # the variant is the same in all
    assert cells.iloc[0].tolist() == [
        *("rope", "128"),
        *("2.40827", "2.38110", "2.35512", "2.34159*"),
    ]
    assert [
        row.index(next(c for c in row if c.endswith("*"))) for row in cells.values.tolist()
    ] == [5, 5, 5, 5, 3, 4]


def test_a_cell_that_is_not_there_is_empty_and_many_levels_are_no_grid() -> None:
    losses = {(1, 1): 2.0, (1, 2): 1.9, (1, 3): 2.1, (2, 1): 3.0, (2, 3): 2.5}
    runs = [run(10 * a + b, val_loss=loss, a=a, b=b) for (a, b), loss in losses.items()]
    cells = grid(pivot(trials_of("study", runs), "b"))
    assert cells.values.tolist() == [
        ["1", "2.00000", "1.90000*", "2.10000"],
        ["2", "3.00000", "", "2.50000*"],
    ]
    many = [run(i, val_loss=i, rate=i / 7) for i in range(13)]
    named = tables(trials_of("study", many))
    assert grid(named["by_rate"]).empty
    assert "columns" not in ranking_text(named)
    assert "by_rate: no grid" in ranking_text(named, every_pivot=True)


def test_means_of_a_setting_are_over_what_differs_in_nothing_else(published: Trials) -> None:
    table = level_means(published).set_index(["setting", "level"])
    assert list(dict.fromkeys(table.index.get_level_values(0))) == [
        *("pe_type", "block_size", "n_embd"),  # by how much their levels differ
    ]
    rope = [
        *(2.34159, 2.35512, 2.3811, 2.40827),
        *(2.35685, 2.36591, 2.37046, 2.40226),
    ]
    assert table.loc[("pe_type", "rope"), "val_loss"] == pytest.approx(sum(rope) / 8)
    assert list(table.loc["pe_type"].index) == ["rope", "sinpe", "randn"]
    assert list(table.loc["block_size"].index) == [64, 32, 16, 8]  # best first
    assert list(table["n"]) == [8] * 3 + [6] * 4 + [12] * 2  # without bigram and factorized


def test_means_are_over_groups_that_have_all_levels() -> None:
    losses = {(1, 1): 2.0, (1, 2): 1.9, (1, 3): 2.1, (2, 1): 3.0, (2, 3): 2.5}
    runs = [run(10 * a + b, val_loss=loss, a=a, b=b) for (a, b), loss in losses.items()]
    found = level_means(trials_of("study", runs))
    assert list(zip(found["setting"], found["level"], found["n"], strict=True)) == [
        *(("a", 1, 2), ("a", 2, 2)),  # with b=1 and b=3
        *(("b", 2, 1), ("b", 1, 1), ("b", 3, 1)),  # with a=1
    ]
    assert list(found["val_loss"]) == pytest.approx([2.05, 2.75, 1.9, 2.0, 2.1])


@pytest.mark.parametrize(
    "settings",
    [
        [{"a": 1, "b": 1}, {"a": 2, "b": 2}],  # they differ together
        [{"a": 1}, {"b": 1}],
        [{"a": 1}],
    ],
)
def test_what_differs_nowhere_alone_has_no_means(settings: list[dict[str, int]]) -> None:
    runs = [run(i, val_loss=2.0 + i, **each) for i, each in enumerate(settings)]
    means = level_means(trials_of("study", runs))
    assert means.empty
    assert means_in_words(means) == []


def test_means_take_three_lines_of_a_terminal_at_most(published: Trials) -> None:
    assert means_in_words(level_means(published)) == [
        "pe_type: rope 2.3727, sinpe 2.4131, randn 2.4650 (8 losses each)",
        "block_size: 64 2.4065, 32 2.4097, 16 2.4155, 8 2.4360 (6 losses each)",
        "n_embd: 64 2.4158, 128 2.4180 (12 losses each)",
    ]
    runs = [
        run(i, val_loss=1 + b + c / 100 + (a == "x") / 1000, a=a, b=b, learning_rate=c / 8, d=d)
        for i, (a, b, c, d) in enumerate(itertools.product("xy\n", range(4), range(13), (7, 8)))
    ]
    lines = means_in_words(level_means(trials_of("study", runs)))
    assert lines[0] == "b: 0 1.0603, 1 2.0603, 2 3.0603, 3 4.0603 (78 losses each)"
    assert lines[1] == "learning_rate: 0.0 2.5003, ..., 1.5 2.6203 (24 losses each)"
    assert lines[2].startswith(r"a: \n 2.5600, y 2.5600, x 2.5610")
    assert len(lines) == 3  # of four settings
    assert max(map(len, lines)) <= 72


def test_markdown_and_csv_print_the_whole_and_nothing_else(tmp_path: Path) -> None:
    done = printed(PUBLISHED_TABLE, "--markdown", "--out", tmp_path)
    for name in ("ranking", "by_n_embd", "by_block_size"):
        assert f"## {name}\n\n{(tmp_path / name).with_suffix('.md').read_text()}" in done.stdout
    done = printed(PUBLISHED_TABLE, "--csv", "--out", tmp_path)
    assert done.stdout == (tmp_path / "ranking.csv").read_text()
    assert len(pd.read_csv(io.StringIO(done.stdout))) == 38
    done = printed(PUBLISHED_TABLE, "--csv", "--by", "pe_type", "--out", tmp_path)
    assert done.stdout == (tmp_path / "by_pe_type.csv").read_text()
    done = printed(PUBLISHED_TABLE, "--csv", "--by", "pe_type", "--by", "n_embd", "--out", tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "analysis: --csv prints one table: give --by once, or not at all\n"


def test_a_setting_that_differs_nowhere_alone_has_no_pivot_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b,val_loss\n1,1,2.0\n2,2,3.0\n")
    done = printed(file, "--by", "a", "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "no two configurations differ in a alone: it has no pivot" in done.stderr
    done = printed(file, "--by", "a", "--csv", "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "analysis: no two configurations differ in a alone: it has no pivot\n"


def test_who_has_no_place_in_the_ranking_is_counted_by_the_reason() -> None:
    runs = [run(i, val_loss=2.0 + i, n_embd=8, seed=i) for i in range(4)]
    runs[2].data.tags["stopped"] = "median stopping at step 500"
    runs[3].data.tags["stopped"] = "median stopping at step 500"
    runs += [run(5, "FAILED", n_embd=8, seed=5), run(6, n_embd=8, seed=6)]
    trials = trials_of("study", runs)
    assert trials.outcomes == {"FAILED": 1, "FINISHED": 3, "stopped early": 2}
    assert not_ranked(trials) == "not ranked: 1 FAILED, 2 stopped early, 1 without a loss"
    assert not_ranked(trials_of("study", runs[:2])) == ""


@pytest.mark.parametrize("width", [20, 44, 80])
def test_a_loss_is_whole_on_any_terminal(
    width: int, published: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    text = ranking_text(tables(published))
    best = [f"{loss:.5f}" for loss in sorted(published.table["val_loss"])[:20]]
    assert [loss for loss in best if loss not in text] == []


def test_an_interval_is_announced_only_where_there_is_one(published: Trials) -> None:
    seeds = trials_of("twice", [run(i, val_loss=2.5 + i / 10, n_embd=8, seed=i) for i in range(2)])
    with_interval = ranking_text(tables(seeds)).splitlines()
    assert with_interval[0].endswith("the mean over n seeds, and its 95 % interval")
    assert {"low", "high"} <= {*with_interval[2].split()}
    alone = ranking_text(tables(published)).splitlines()
    assert alone[0] == "val_loss in nats per character, of one seed"
    assert not {"low", "high"} & {*alone[2].split()}


@pytest.mark.parametrize("by", [[], ["--by", "n_embd"]])
def test_csv_and_markdown_are_refused_together(by: list[str], tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("n_embd,val_loss\n8,1.0\n16,2.0\n")
    for forms in (["--csv", "--markdown"], ["--markdown", "--csv"]):
        done = CliRunner().invoke(
            main, ["rankings", str(table), "--out", str(tmp_path), *forms, *by]
        )
        assert (done.exit_code, done.stdout) == (2, "")
        assert "give --csv or --markdown, not both" in done.stderr


def test_test_losses_stand_beside_validation_losses_where_there_are_some() -> None:
    runs = [run(seed, val_loss=2.5 + seed / 10, lr=0.1, seed=seed) for seed in (1, 2)]
    runs += [run(3, val_loss=2.9, lr=0.2, seed=1)]
    assert "test_loss" not in rankings(trials_of("study", runs))
    for each, loss in zip(runs, (2.6, 2.8), strict=False):
        each.data.metrics["test_loss"] = loss
    table = rankings(trials_of("study", runs))
    names = list(table.columns)
    assert names[names.index("val_loss") :][:4] == ["val_loss", "low", "high", "test_loss"]
    assert table["test_loss"].tolist()[:1] == [pytest.approx(2.7)]
    assert table["test_loss"].isna().tolist() == [False, True]
    assert "2.70000" in ranking_text({"ranking": table})
    del runs[1].data.metrics["test_loss"]
    runs[2].data.metrics["test_loss"] = 3.0
    table = rankings(trials_of("study", runs))
    assert table["test_loss"].isna().tolist() == [True, False]  # a mean of fewer than n says less
