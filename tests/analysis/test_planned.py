"""What a sweep planned and never began: lost where it is compared, and nowhere else to be seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from analysis import Trials, check_claims, judged, tables, trials_of
from analysis.command import main
from analysis.figures.data import configurations_to_draw
from analysis.reports.report import Evidence, report
from analysis.reports.search_texts import basis
from analysis.trials.confirmed import confirmation_note, not_begun_note, unconfirmed
from analysis.trials.loading import load_curves, planned_row
from tests.analysis.test_tuned import cell, claims_file, study, whole
from tests.analysis.tuned import SEARCH, confirmed, run, scattered, sweep

LOSSES = {8: 2.3, 16: 2.5, 32: 2.1, 64: 2.4}
SEEDS = (1, 2, 3)
DESPITE = "despite: [learning_rate, schedule, warmup_steps]"  # which one side had tuned


def planned(params: dict[str, Any], **tags: Any) -> dict[str, Any]:
    """As the plan of a sweep has a trial; its key is made of its settings."""
    texts = {name: str(value) for name, value in params.items()}
    words = {name: str(value) for name, value in tags.items()}
    return planned_row({"key": key_of(params), "name": "x", "params": texts, "tags": words})


def key_of(params: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())


def grid(begun: Iterable[int], seeds: Iterable[int] = SEEDS, known: bool = True) -> Trials:
    """Four context lengths were planned, of which some began with some seeds."""
    plan = [{"block_size": block, "seed": seed} for block in LOSSES for seed in SEEDS]
    runs = [
        run(each, scattered(LOSSES[each["block_size"]], key_of(each)), key=key_of(each))
        for each in plan
        if each["block_size"] in begun and each["seed"] in seeds
    ]
    return trials_of("grid", runs, None, [planned(each) for each in plan] if known else None)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, list(map(str, arguments)))


def verdict(trials: Trials, folder: Path, text: str) -> tuple[str, int]:
    (found,) = check_claims(trials, claims_file(folder, text))
    return found.verdict, found.lost


@pytest.mark.parametrize(
    ("text", "all_began", "lost"),
    [
        ("factor: block_size, best: 32", "SUPPORTED", 3),
        ("factor: block_size, best: 32, holds: on average", "SUPPORTED", 3),
        ("factor: block_size, best: 16", "NOT SUPPORTED", 9),
        ("where: {block_size: [8, 16]}, factor: block_size, monotone: rising", "SUPPORTED", 3),
        ("where: {block_size: [8, 16, 64]}, factor: block_size, monotone: rising",
         "NOT SUPPORTED", 6),
        ("where: {block_size: [16, 32]}, factor: block_size, trend: falling", "SUPPORTED", 3),
    ],
)  # fmt: skip
def test_a_level_that_never_began_leaves_its_cell_undecided(
    text: str, all_began: str, lost: int, tmp_path: Path
) -> None:
    assert verdict(grid(LOSSES), tmp_path, text) == (all_began, 0)
    assert verdict(grid([8, 32, 64]), tmp_path, text) == ("UNDERPOWERED", lost)


def test_seeds_that_began_on_neither_side_are_lost(tmp_path: Path) -> None:
    text = "where: {block_size: [8, 32]}, factor: block_size, best: 32"
    assert verdict(grid([8, 32], (1, 2)), tmp_path, text) == ("UNDERPOWERED", 1)
    assert verdict(grid([8, 32]), tmp_path, text) == ("SUPPORTED", 0)


def test_a_run_that_was_deleted_is_lost(tmp_path: Path) -> None:
    trials = grid(LOSSES)
    fewer = replace(trials, table=trials.table.drop(index=4))  # block_size 16
    assert verdict(fewer, tmp_path, "factor: block_size, best: 32") == ("UNDERPOWERED", 1)
    assert not_begun_note(fewer).startswith("1 planned trial has not begun, or the run was deleted")


def test_a_setting_that_no_run_has_yet_may_be_claimed_about(tmp_path: Path) -> None:
    rows = [planned({"variant": "attention", "pe_type": "rope", "seed": s}) for s in SEEDS]
    bigram = [run({"variant": "bigram", "seed": s}, 2.0, key=f"bigram {s}") for s in SEEDS]
    trials = trials_of("grid", bigram, None, rows)
    assert trials.params == ("variant", "seed")
    assert judged(trials).params == ("variant", "pe_type", "seed")
    text = "better: {variant: bigram}, worse: {pe_type: rope}"
    assert verdict(trials, tmp_path, text) == ("UNDERPOWERED", 3)


def test_where_all_began_and_where_nothing_is_known_the_trials_are_judged_as_they_are() -> None:
    for trials in (grid(LOSSES), grid([8], known=False)):
        assert judged(trials) is trials
        assert not_begun_note(trials) == ""
    assert [grid([8], known=is_known).plan_known for is_known in (True, False)] == [True, False]


def test_what_never_began_is_judged_once() -> None:
    once = judged(grid([8, 32]))
    assert list(once.table["status"].value_counts().items()) == [("FINISHED", 6), ("WAITING", 6)]
    assert once.table.index.is_unique
    assert judged(once) is once
    assert once.plan_known


@pytest.mark.parametrize("only_planned", [{"n_embd": 16}, {"n_embd": 8, "pe_type": "rope"}])
def test_rankings_figures_and_settings_are_those_of_the_trials_that_began(
    only_planned: dict[str, Any],
) -> None:
    runs = [
        run({"block_size": block, "n_embd": 8, "seed": seed}, LOSSES[block], key=f"{block} {seed}")
        for block in (8, 32)
        for seed in SEEDS
    ]
    rows = [planned({"block_size": 8, **only_planned, "seed": seed}) for seed in SEEDS]
    trials, bare = trials_of("grid", runs, None, rows), trials_of("grid", runs)
    assert trials.table.equals(bare.table)
    assert trials.settings == bare.settings
    named, others = tables(trials), tables(bare)
    assert named.keys() == others.keys() == {"ranking", "by_block_size"}
    assert all(named[name].equals(others[name]) for name in named)
    shown, other = configurations_to_draw(trials), configurations_to_draw(bare)
    assert shown is not None
    assert other is not None
    assert shown.table.equals(other.table)
    assert not_begun_note(trials).startswith("3 planned trials have not begun")


@pytest.mark.parametrize("command", ["conclusions", "report"])
def test_the_commands_say_how_many_never_began(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = claims_file(tmp_path, "factor: block_size, best: 32")
    out, again = tmp_path / "out", tmp_path / "again"
    with monkeypatch.context() as patched:
        patched.setattr("analysis.trials.loading.load_trials", lambda *_: grid([8, 32]))
        first = invoke(command, "grid", "--claims", claims, "--out", out)
    assert (out / "trials.csv").read_text().count(",WAITING,") == 6
    second = invoke(command, out / "trials.csv", "--claims", claims, "--out", again)
    for done, folder in ((first, out), (second, again)):
        is_page = command == "report"
        assert done.exit_code == (0 if is_page else 1), done.output
        said = (folder / "report.md").read_text() if is_page else done.output
        assert "6 planned trials have not begun" in said
        assert "UNDERPOWERED" in said


def test_a_report_says_where_the_plan_is_not_known() -> None:
    trials = sweep(whole())
    text = report(Evidence(trials, tables(trials), load_curves(replace(trials, sweep={})), []))
    assert "Which trials the sweep planned is not known" in text.text
    assert "was tuned is the best that the search saw" in text.text
    plain = replace(grid([8, 32]), sweep={"status": "FINISHED"})
    text = report(Evidence(plain, tables(plain), load_curves(replace(plain, sweep={})), []))
    assert "is not known:" not in text.text
    assert "a learning rate that suits one may not suit another" in text.text


# Searches.


def winners(pe_type: str, n_embd: int = 64) -> list[dict[str, Any]]:
    """What the plan has of a study: its winner on the fresh seeds, without what is tuned."""
    fixed = {"variant": "attention", "pe_type": pe_type, "n_embd": n_embd, "max_steps": 1000}
    label = study(pe_type, n_embd)
    about = {"stage": "confirm", "study": label, "rank": 1, "arm": 0}
    rows = [planned({**fixed, "seed": seed}, **about) for seed in SEARCH["confirm_seeds"]]
    return [row | {"key": "", "name": label} for row in rows]


def plan_of_whole() -> list[dict[str, Any]]:
    return [
        row
        for width in (64, 128)
        for pe_type in ("rope", "sinpe")
        for row in winners(pe_type, width)
    ]


def with_plan(runs: list[Any], rows: list[dict[str, Any]], **about: Any) -> Trials:
    """Trials of a sweep with a search, whose plan has these rows."""
    parent = sweep(runs, **about).sweep
    return replace(trials_of("tuned", runs, None, rows), sweep=parent)


ORDER = "factor: pe_type, order: [rope, sinpe]"


def test_a_study_that_never_began_counts_and_is_named(tmp_path: Path) -> None:
    runs = [each for each in whole() if study("sinpe", 128) not in each.info.run_id]
    trials = with_plan(runs, plan_of_whole())
    assert verdict(trials, tmp_path, ORDER) == ("UNDERPOWERED", 3)
    assert verdict(with_plan(runs, plan_of_whole()[:9]), tmp_path, ORDER)[1] == 3  # all alone
    assert unconfirmed(trials) == [study("sinpe", 128)]
    assert "1 of 4 studies have no confirmed winner" in confirmation_note(trials)
    assert "winners of 3 studies" in basis(trials)
    assert verdict(with_plan(whole(), plan_of_whole()), tmp_path, ORDER) == ("SUPPORTED", 0)
    assert judged(with_plan(whole(), plan_of_whole())).table["status"].eq("FINISHED").all()


def test_a_search_of_which_only_the_grid_began_has_its_studies(tmp_path: Path) -> None:
    fixed = {"learning_rate": 0.01, "schedule": "constant", "warmup_steps": 0, "max_steps": 1000}
    bigram = [run({"variant": "bigram", **fixed, "seed": seed}, 2.5) for seed in (2, 3, 4)]
    trials = with_plan(bigram, plan_of_whole())
    assert verdict(trials, tmp_path, ORDER) == ("UNDERPOWERED", 6)
    text = f"better: {{variant: attention}}, worse: {{variant: bigram}}, {DESPITE}"
    assert verdict(trials, tmp_path, text) == ("UNDERPOWERED", 12)


def test_a_fresh_seed_that_never_began_is_lost_with_the_arm_that_the_search_chose(
    tmp_path: Path,
) -> None:
    """A study of two arms: what is planned of it lacks what tells them apart."""
    label = "rope, sinpe"
    rows = [
        planned({"variant": "attention", "n_embd": 64, "max_steps": 1000, "seed": seed},
                stage="confirm", study=label, rank=1) | {"key": ""}
        for seed in SEARCH["confirm_seeds"]
    ]  # fmt: skip
    fixed = {"learning_rate": 0.01, "schedule": "constant", "warmup_steps": 0, "max_steps": 1000}
    bigram = [run({"variant": "bigram", **fixed, "seed": seed}, 2.5) for seed in (2, 3, 4)]
    runs = [*bigram, *confirmed(label, cell("rope"), [2.30, 2.31], arm=1)]
    trials = with_plan(runs, rows, arms=[0, 0])
    text = f"better: {{pe_type: rope}}, worse: {{variant: bigram}}, {DESPITE}"
    assert verdict(trials, tmp_path, text) == ("UNDERPOWERED", 1)
    late = judged(trials).table.query("status == 'WAITING'")
    assert list(late[["seed", "pe_type", "learning_rate"]].itertuples(index=False, name=None)) == [
        (4, "rope", "tuned")
    ]


# What is tuned on one side and fixed on the other.


def test_what_is_tuned_reads_so_where_others_have_a_value() -> None:
    fixed = {"learning_rate": 0.01, "schedule": "constant", "max_steps": 1000}
    bigram = [run({"variant": "bigram", **fixed, "seed": seed}, 2.5) for seed in (2, 3, 4)]
    found = judged(sweep([*whole(), *bigram]))
    rates = found.table.groupby("variant")["learning_rate"].unique()
    assert {name: list(values) for name, values in rates.items()} == {
        "attention": ["tuned"],
        "bigram": ["0.01"],
    }
    assert {"learning_rate", "schedule"} <= set(found.settings)
    assert "warmup_steps" not in found.params  # no plain trial has it


def test_what_is_tuned_in_all_trials_that_have_it_is_no_setting() -> None:
    bigram = [run({"variant": "bigram", "max_steps": 1000, "seed": s}, 2.5) for s in (2, 3, 4)]
    for runs in (whole(), [*whole(), *bigram]):
        found = judged(sweep(runs))
        assert not {"learning_rate", "schedule", "warmup_steps"} & {*found.params}
        assert found.table["learning_rate"].isna().all()


def test_a_plain_trial_stands_back_in_the_cell_of_a_study_whatever_its_rate() -> None:
    by_hand = [
        run({**cell("rope", learning_rate=rate), "max_steps": 1000, "seed": seed}, 9.0)
        for rate in (0.01, 0.1)
        for seed in (2, 3, 4)
    ]
    found = judged(sweep([*whole(), *by_hand]))
    assert found.table["val_loss"].max() < 3
