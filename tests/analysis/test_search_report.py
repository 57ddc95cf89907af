"""The page on a search: its figures, its section of the report, and the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import Trials, tables
from analysis.command import main
from analysis.figures.report_figures import figures, figures_of_search, overview_figure
from analysis.reports.report import Evidence, report
from analysis.reports.search_texts import basis, search_report, search_text
from analysis.results.published import PUBLISHED
from tests.analysis.test_studies import ROPE, RUNS, tried
from tests.analysis.tuned import SEARCH, confirmed, run, suggested, sweep

NO_CURVES = pd.DataFrame(columns=["run_id", "step", "val_loss"])


def many(studies: int = 3, count: int = 8) -> Trials:
    """Studies of which each has its own level; one of the suggestions failed, one was stopped."""
    runs = []
    for study in range(studies):
        label = f"attention n_embd={study}"
        for number in range(count):
            chosen = {"n_embd": study, **tried(0.01 * 1.2**number, "cosine", 10 * number)}
            loss = 2 + study + abs(number - 4) / 100
            more: dict[str, Any] = {"parameters": 100 - number}
            if number == 1:
                more |= {"stopped": "asha: at step 300", "rung": 300}
            runs.append(suggested(label, number, chosen, loss, **more))
        runs.append(suggested(label, count, chosen, None, status="FAILED"))
    return sweep(runs, objectives=["val_loss", "parameters"])


@pytest.mark.parametrize("studies", [3, 9])
def test_a_search_has_its_figures_and_the_same_runs_give_the_same_bytes(studies: int) -> None:
    drawn = figures_of_search(many(studies))
    assert list(drawn) == ["importance", "slices", "parallel", "best_so_far", "pareto"]
    for figure in drawn.values():
        ElementTree.fromstring(figure.svg)
    counts = (
        f"{7 * studies} finished (dots), {studies} stopped early (crosses, at their last val_loss),"
        f" {studies} failed (ticks on top)"
    )
    assert counts in drawn["slices"].shows
    assert ("their median in black" in drawn["best_so_far"].shows) == (studies > 8)
    assert "tests nothing" in drawn["importance"].shows
    if studies == 3:
        assert figures_of_search(many(studies)) == drawn


def test_what_no_trial_did_is_not_counted_in_a_caption() -> None:
    runs = [suggested("s", number, tried(0.01 * number), 2 + number / 100) for number in (1, 2, 3)]
    shows = figures_of_search(sweep(runs))["slices"].shows
    assert "chosen: 3 finished (dots). The later" in shows


def test_the_picture_of_a_search_shows_what_it_tried() -> None:
    runs = [suggested("s", number, tried(0.01 * number), 2 + number / 100) for number in (1, 2, 3)]
    picture = overview_figure(sweep(runs))
    assert picture is not None
    assert picture.name == "slices"


def written(trials: Trials) -> str:
    return report(Evidence(trials, tables(trials), NO_CURVES, [])).text


def test_the_report_has_winners_confirmed_and_suggested_apart() -> None:
    runs = [
        *RUNS,
        *confirmed(ROPE, tried(0.010, "cosine", 98), [2.40, 2.44, 2.48]),
        *confirmed(ROPE, tried(0.012), [2.5, 2.6, 2.7], rank=2),
        suggested(ROPE, 7, tried(0.010, "cosine", 98), 2.20),
    ]
    text = written(sweep(runs))
    search = text.partition("## Search")[2].partition("\n## ")[0]
    row = next(line for line in search.splitlines() if line.startswith(f"| {ROPE}"))
    assert [cell.strip() for cell in row.split("|")[5:-1]] == [
        *("2.20000", "1", "2.44000", "2.34063", "2.53937", "3", "warmup_steps: high edge"),
    ]
    assert "**1 of 1 winners lie at an edge of a range:**" in search
    assert "Compared by the grid: nothing. Fixed: pe_type=rope, max_steps=1000." in search
    assert "0.001 to 0.1 (log)" in search
    assert "8 suggestions: 4 finished, 2 stopped, 1 failed. 5,200 steps, 24% less than" in search
    rankings = text.partition("## Rankings")[2].partition("\n## ")[0]
    assert re.findall("^### (.*)$", rankings, flags=re.MULTILINE) == [
        "Confirmed on fresh seeds",
        "Suggested by the search (optimistic: chosen by these losses)",
    ]
    best = rankings.partition("Suggested")[0]
    assert "2.44000" in best
    assert "picked" in best
    assert "2.20000" not in best


def test_a_search_without_confirmation_is_reported_and_says_what_is_missing() -> None:
    trials = sweep(RUNS, confirm_seeds=[])
    assert "**1 of 1 studies have no confirmed winner" in written(trials)
    assert basis(trials).startswith("Judged on the winners of 0 studies")
    assert "set `search.confirm`" in basis(trials)
    assert figures(trials, NO_CURVES, pd.DataFrame()).keys() >= {"slices", "best_so_far"}


def test_several_suggestions_of_a_sampler_without_stopping_are_said() -> None:
    text = written(sweep([suggested(ROPE, 0, tried(0.01), 2.0)], stopping="none", hours=0.5))
    assert "none stopped early; limits: 300 suggestions, 0.5 hours;" in text
    assert SEARCH["stopping"] == "asha"


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_explains_a_plain_table_and_writes_its_page(tmp_path: Path) -> None:
    done = invoke("importance", PUBLISHED, "--out", tmp_path)
    assert (done.exit_code, "no evidence and no test" in done.output) == (0, True), done.output
    table = pd.read_csv(tmp_path / "importance.csv")
    assert set(table["setting"]) == {"variant", "pe_type", "n_embd", "block_size"}
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert files == {
        *("report.html", "report.md", "importance.csv", "importance.md"),
        *("figures/importance.svg", "figures/importance.png"),
    }


def test_the_command_refuses_what_is_too_little(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    for rows in ("8,2,1.0", "8,2,1.0\n16,4,2.0"):
        table.write_text(f"n_embd,block_size,val_loss\n{rows}\n")
        done = invoke("importance", table, "--out", tmp_path)
        assert done.exit_code == 2, done.output
        assert done.output.startswith("analysis: no two configurations differ in one setting; imp")
        assert "Traceback" not in done.output


def test_a_small_grid_shows_what_each_setting_does_by_itself(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "pe_type,n_embd,val_loss\n"
        "rope,8,2.5\nrope,16,2.4\nrope,32,2.0\n"
        "sinpe,8,2.8\nsinpe,16,2.6\nsinpe,32,2.7\n"
    )
    done = invoke("importance", table, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "No importance is shown: importance needs 20 finished trials" in done.output
    assert "no evidence and no test" in done.output
    found = pd.read_csv(tmp_path / "means.csv")
    assert list(found["setting"]) == ["pe_type"] * 2 + ["n_embd"] * 3
    assert list(found["level"].astype(str)) == ["rope", "sinpe", "32", "16", "8"]
    assert list(found["val_loss"]) == pytest.approx([2.3, 2.7, 2.35, 2.5, 2.65])
    assert list(found["n"]) == [3, 3, 2, 2, 2]
    assert "2.70000" in next(row for row in done.output.splitlines() if "sinpe" in row)
    assert "2.70000" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("count", "said"), [(21, "on 21 finished trials:"), (301, "on 300 of the")]
)
def test_importance_says_of_how_many_trials_it_speaks(count: int, said: str) -> None:
    rates = range(count)
    trials = sweep([run({"n_embd": 8 + r, "learning_rate": r % 7}, 2 + r / 99) for r in rates])
    assert said in search_text(trials, search_report(trials)[1])


def test_a_small_search_has_all_but_importance_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = sweep([*RUNS, *confirmed(ROPE, tried(0.010, "cosine", 98), [2.40, 2.44, 2.48])])
    monkeypatch.setattr("analysis.command._load", lambda *_: (trials, ""))
    done = invoke("importance", "tuned", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    reason = "No importance is shown: importance needs 20 finished trials and two settings"
    assert reason in done.output
    line = next(line for line in done.output.splitlines() if line.startswith(ROPE))
    assert "2.44000" in line
    assert "3 finished, 2 stopped, 1 failed" in done.output
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")}
    assert files == {"winners.csv", "suggestions.csv", "best_so_far.csv"}
    page = (tmp_path / "report.md").read_text()
    assert reason in page
    assert "### Winners" in page
    assert (tmp_path / "figures/best_so_far.svg").exists()


def test_with_enough_trials_importance_comes_first_and_winners_follow() -> None:
    made, named = search_report(many())
    assert next(iter(named)) == "importance"
    text = search_text(many(), named)
    assert "No importance" not in text
    assert text.index("fANOVA") < text.index("\nwinners\n")
    assert "|" not in text
    assert "## Search" in made.text


def test_stopped_trials_are_counted_apart_from_those_that_finished() -> None:
    text = written(many())
    assert "27 trials (3 FAILED, 21 FINISHED, 3 stopped early) of " in text


def test_what_a_search_suggested_stands_before_no_table_where_there_is_none() -> None:
    alone = written(sweep([suggested(ROPE, i, tried(0.01 + i / 100), 2.0) for i in range(3)]))
    part = alone.partition("## Not counted in the conclusions")[2].partition("\n## ")[0]
    assert part.strip() == "3 trials that the search suggested."
    failed = run({"pe_type": "rope", "seed": 9}, None, "FAILED", failure="diverged")
    mixed = written(sweep([suggested(ROPE, 0, tried(0.01), 2.0), failed]))
    part = mixed.partition("## Not counted in the conclusions")[2].partition("\n## ")[0]
    assert "1 trial that the search suggested, and:\n\n|" in part
    assert "FAILED: diverged" in part
