"""Trials in CSV files: nothing of what people write is dropped, and what we write comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from analysis import (
    AnalysisError,
    Trials,
    check_claims,
    conclusions_table,
    contrasts_table,
    judged,
    load_trials,
    rankings,
    trials_of,
)
from analysis.command import main
from analysis.trials.loading import planned_row
from analysis.trials.trials_csv import read_trials_csv, write_trials_csv
from tests.analysis.test_tuned import cell, claims_file, study, whole
from tests.analysis.tuned import confirmed, run, scattered, sweep


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def levels(losses: Mapping[str, float], column: str = "pe_type") -> str:
    """A table with three seeds of each level."""
    rows = [
        f'"{level}",{seed},{scattered(loss, list(losses).index(level), seed):.6f}'
        for level, loss in losses.items()
        for seed in (1, 2, 3)
    ]
    return "\n".join([f"{column},seed,val_loss", *rows]) + "\n"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, list(map(str, arguments)))


def assert_refused(folder: Path, text: str, *words: str) -> None:
    """One line and exit code 2, from the command."""
    path = write(folder, text)
    done = invoke("conclusions", path, "--out", folder)
    assert done.exit_code == 2
    assert done.output.startswith(f"analysis: {path}: ")
    assert done.output.count("\n") == 1
    assert all(word in done.output for word in words), done.output


# Levels.


@pytest.mark.parametrize(
    "word", ["None", "NA", "null", "nan", "n/a", "NULL", "<NA>", "#N/A", "-nan"]
)
def test_a_level_may_be_any_word(word: str, tmp_path: Path) -> None:
    trials = load_trials(str(write(tmp_path, levels({"rope": 2.3, "sinpe": 2.4, word: 2.2}))))
    assert set(trials.table["pe_type"]) == {"rope", "sinpe", word}
    claims = claims_file(tmp_path, "factor: pe_type, best: rope")
    (found,) = check_claims(trials, claims)
    assert found.verdict == "NOT SUPPORTED"
    (found,) = check_claims(trials, claims_file(tmp_path, f'factor: pe_type, best: "{word}"'))
    assert (found.verdict, found.cells) == ("SUPPORTED", 1)


def test_only_an_empty_cell_is_a_setting_that_a_trial_does_not_have(tmp_path: Path) -> None:
    trials = load_trials(str(write(tmp_path, levels({"rope": 2.3, "sinpe": 2.4, "": 2.2}))))
    assert trials.table["pe_type"].isna().sum() == 3
    (found,) = check_claims(trials, claims_file(tmp_path, "factor: pe_type, best: rope"))
    assert (found.verdict, len(found.contrasts)) == ("SUPPORTED", 1)


def test_a_number_among_words_is_a_word(tmp_path: Path) -> None:
    trials = load_trials(str(write(tmp_path, levels({"8": 2.3, "None": 2.4}, "width"))))
    assert set(trials.table["width"]) == {"8", "None"}


# Losses and other numbers.


@pytest.mark.parametrize("word", ["", "nan", "NaN", "None", "NULL", "n/a", " NA ", "-nan"])
def test_a_loss_may_be_missing_in_the_usual_words_and_its_trial_is_counted_as_lost(
    word: str, tmp_path: Path
) -> None:
    text = levels({"rope": 2.3, "sinpe": 2.4}).replace(f"{scattered(2.4, 1, 1):.6f}", word)
    trials = load_trials(str(write(tmp_path, text)))
    (found,) = check_claims(trials, claims_file(tmp_path, "factor: pe_type, best: rope"))
    assert (found.verdict, found.lost) == ("UNDERPOWERED", 1)


@pytest.mark.parametrize("name", ["val_loss", "train_loss", "training_seconds"])
def test_what_is_no_number_is_refused_with_its_row(name: str, tmp_path: Path) -> None:
    text = "a,train_loss,training_seconds,val_loss\n1,2,3,4\n1,2,3,4\n"
    at = text.splitlines()[0].split(",").index(name)
    rows = [line.split(",") for line in text.splitlines()]
    rows[2][at] = "2,3".replace(",", ";")
    assert_refused(tmp_path, "\n".join(map(",".join, rows)), f"row 3: {name} '2;3' is no number")


# Columns that have a meaning.


@pytest.mark.parametrize("word", ["finished", "Finished", " FINISHED ", "", "None"])
def test_a_status_counts_however_it_is_spelled(word: str, tmp_path: Path) -> None:
    text = f"n_embd,seed,status,val_loss\n8,1,{word},2.0\n16,1,failed,\n"
    trials = load_trials(str(write(tmp_path, text)))
    assert list(trials.table["status"]) == ["FINISHED", "FAILED"]
    assert len(rankings(trials)) == 1


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (
            "status",
            "done",
            ("row 3: status 'done' is unknown", "FINISHED, FAILED, KILLED, RUNNING"),
        ),
        ("status", "1", ("row 3: status '1' is unknown", "SCHEDULED, WAITING")),
        ("stage", "final", ("row 3: stage 'final' is unknown", "search, confirm", "empty cell")),
        ("seed", "", ("row 3: seed '' is no whole number",)),
        ("seed", "1.5", ("row 3: seed '1.5' is no whole number",)),
        ("seed", "inf", ("row 3: seed 'inf' is no whole number",)),
        ("seed", "None", ("row 3: seed 'None' is no whole number",)),
        ("run_id", "a", ("row 3: run_id 'a' is there twice",)),
        ("key", "a", ("row 3: key 'a' is there twice",)),
    ],
)
def test_a_cell_that_can_have_no_meaning_is_refused_with_its_row(
    column: str, value: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    first = {"status": "finished", "stage": "", "seed": "7"}.get(column, value)
    assert_refused(tmp_path, f"n,{column},val_loss\n8,{first},2.0\n8,{value},2.1\n", *words)


@pytest.mark.parametrize("name", ["Status", " status", "STAGE", "Val_Loss", "Seed", "stopped "])
def test_a_column_that_is_nearly_one_of_ours_is_refused(name: str, tmp_path: Path) -> None:
    text = f"a,{name},seed_,val_loss\n1,x,1,2.0\n2,y,1,2.1\n"
    assert_refused(tmp_path, text, f"write the column {name!r} as {name.strip().lower()}")


@pytest.mark.parametrize("word", ["", "False", "no", "0", "None", "nan"])
def test_a_trial_that_was_not_stopped_counts_however_that_is_said(
    word: str, tmp_path: Path
) -> None:
    text = f"a,seed,stopped,val_loss\n1,1,{word},2.0\n2,1,at step 10,2.1\n"
    trials = load_trials(str(write(tmp_path, text)))
    assert list(trials.comparable["a"]) == [1]
    assert list(trials.left_out["why"]) == ["stopped early: at step 10"]


@pytest.mark.parametrize("name", ["arm", "picked", "suggestion", "rung", "parameters", "n"])
def test_a_column_that_only_a_search_gives_a_meaning_is_a_setting(
    name: str, tmp_path: Path
) -> None:
    trials = load_trials(str(write(tmp_path, f"{name},seed,val_loss\na,1,2.0\nb,1,2.1\n")))
    assert trials.settings == (f"{name}_setting",)


# What we write.


def plain(planned: bool) -> Trials:
    """Three levels in two widths with three seeds, names that are ours or a spreadsheet's.

    A trial failed, and two never began.
    """
    runs, rows = [], []
    for pe_type, loss in {"rope": 2.3, "None": 2.4, "=1+1": 2.5}.items():
        for width in (64, 128):
            for seed in (1, 2, 3):
                rate = 1e-5 if width == 64 else 0.1 + 0.2
                params = {"pe_type": pe_type, "n_embd": width, "seed": seed, "rate": rate,
                          "n": 3 * width, "status": "odd", "arm": f"b{width}"}  # fmt: skip
                key = f"{pe_type} {width} {seed}"
                texts = {name: str(value) for name, value in params.items()}
                rows.append(planned_row({"key": key, "name": key, "params": texts, "tags": {}}))
                if (pe_type, width, seed) in {("None", 64, 2), ("rope", 128, 3)}:
                    continue
                exact = loss + seed / 7_000 + width / 90_000
                runs.append(run(params, exact, key=key, corpus_digest="d", result_version=2))
    runs[0].info.status, runs[0].data.metrics = "FAILED", {}
    return trials_of("plain", runs, planned=rows if planned else None)


def tuned() -> Trials:
    """Studies of two widths, one of which has no winner yet, and a plain model of fresh seeds."""
    late = f"study={study('sinpe', 128)}"
    runs = [r for r in whole() if not ("confirm" in r.info.run_id and late in r.info.run_id)]
    fixed = {"learning_rate": 0.01, "schedule": "constant", "warmup_steps": 0, "max_steps": 1000}
    runs += [run({"variant": "bigram", **fixed, "seed": seed}, 2.5 + seed / 700) for seed in (2, 3)]
    second = cell("sinpe", schedule="cosine", warmup_steps=7)
    return sweep([*runs, *confirmed(study("sinpe"), second, [1.0, 1.0, 1.0], rank=2)])


ROPE_BEST = "factor: pe_type, best: rope"
CLAIMS = [
    ROPE_BEST,
    "factor: pe_type, best: rope, holds: on average",
    "factor: n_embd, trend: falling",
    "factor: pe_type, equal: [rope, None]",
    "better: {pe_type: rope, n_embd: 64}, worse: {pe_type: sinpe, n_embd: 64}",
    "better: {variant: attention}, worse: {variant: bigram}",
]


def said(trials: Trials, folder: Path) -> list[str]:
    """The tables of verdicts on each claim that the trials can speak of, as CSV."""
    found = []
    for text in CLAIMS:
        try:
            conclusions = check_claims(trials, claims_file(folder, text))
        except AnalysisError as error:
            found.append(str(error).partition(":")[0])
        else:
            tables = conclusions_table(conclusions), contrasts_table(conclusions)
            found += [table.to_csv() for table in tables]
    return found


@pytest.mark.parametrize(
    "made", [plain(True), plain(False), tuned()], ids=["plan", "no plan", "tuned"]
)
def test_what_is_written_has_the_same_verdicts_when_it_is_read(
    made: Trials, tmp_path: Path
) -> None:
    path = write_trials_csv(judged(made), tmp_path)
    again = load_trials(str(path))
    assert again.plan_known == made.plan_known
    assert again.params == judged(made).params
    expected = said(made, tmp_path)
    assert sum("UNDERPOWERED" in text or "SUPPORTED" in text for text in expected) > 3
    assert said(again, tmp_path) == expected
    shuffled = Trials(made.experiment, made.table[::-1], made.params, made.sweep, made.planned)
    text = path.read_text()
    assert write_trials_csv(judged(shuffled), tmp_path).read_text() == text
    once = write_trials_csv(again, tmp_path).read_text()  # with row numbers for ids
    assert write_trials_csv(load_trials(str(path)), tmp_path).read_text() == once


def test_a_row_that_was_taken_from_a_whole_table_is_missed(tmp_path: Path) -> None:
    path = write_trials_csv(judged(plain(True)), tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 18
    path.write_text("".join(lines[:-1]))
    with pytest.raises(AnalysisError, match="planned '18' is no count of the 17 rows; bring the"):
        load_trials(str(path))


def test_both_commands_write_the_trials_that_they_judged(tmp_path: Path) -> None:
    path = write(tmp_path, levels({"rope": 2.3, "sinpe": 2.4}))
    claims = claims_file(tmp_path, ROPE_BEST)
    texts = []
    for command in ("conclusions", "report"):
        done = invoke(command, path, "--claims", claims, "--out", tmp_path / command)
        assert done.exit_code == 0, done.output
        texts.append((tmp_path / command / "trials.csv").read_text())
    assert texts[0] == texts[1]
    again = invoke("conclusions", tmp_path / "report" / "trials.csv", "--claims", claims,
                   "--out", tmp_path / "again")  # fmt: skip
    assert again.exit_code == 0
    assert (tmp_path / "again" / "contrasts.csv").read_text() == (
        tmp_path / "conclusions" / "contrasts.csv"
    ).read_text()


def test_the_file_that_was_read_is_not_written_over(tmp_path: Path) -> None:
    text = levels({"rope": 2.3, "sinpe": 2.4})
    path = write(tmp_path, text).rename(tmp_path / "trials.csv")
    claims = claims_file(tmp_path, ROPE_BEST)
    for command in ("conclusions", "report"):
        done = invoke(command, path, "--claims", claims, "--out", tmp_path)
        assert done.exit_code == 0, done.output
        assert path.read_text() == text


# Losses that are too large.


@pytest.mark.parametrize("loss", ["1e308", "1e200", "-1e308", "inf"])
@pytest.mark.parametrize("command", ["rankings", "conclusions", "report", "importance"])
def test_a_loss_that_is_out_of_all_proportion_is_left_out_and_not_printed(
    command: str, loss: str, tmp_path: Path
) -> None:
    rows = [
        f"{pe_type},{width},{seed},{2.3 + (pe_type == 'sinpe') / 10 + seed / width:.3f}"
        for pe_type in ("rope", "sinpe")
        for width in (64, 128, 256, 512)
        for seed in (1, 2, 3)
    ]
    rows[0] = rows[0].rpartition(",")[0] + f",{loss}"
    rows[-1] = rows[-1].rpartition(",")[0] + f",{loss}"
    path = write(tmp_path, "\n".join(["pe_type,n_embd,seed,val_loss", *rows]))
    claims = [] if command in ("rankings", "importance") else [
        "--claims", claims_file(tmp_path, ROPE_BEST)
    ]  # fmt: skip
    done = invoke(command, path, *claims, "--out", tmp_path / "out")
    assert done.exit_code == (1 if command == "conclusions" else 0), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    pages = [p.read_text() for p in (tmp_path / "out").rglob("*") if p.suffix in (".md", ".csv")]
    assert not [text for text in (done.output, *pages) if "0" * 50 in text or "9" * 50 in text]
    if command == "conclusions":
        assert "UNDERPOWERED" in done.output


def test_test_losses_are_kept_where_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    path.write_text("size,seed,val_loss,test_loss\n1,1,2.5,2.6\n2,1,2.4,\n")
    tested = read_trials_csv(path)
    again = read_trials_csv(write_trials_csv(tested, tmp_path / "tested"))
    assert again.table["test_loss"].dropna().tolist() == [2.6]
    assert again.params == tested.params == ("seed", "size")
    path.write_text("size,seed,val_loss\n1,1,2.5\n2,1,2.4\n")
    written = write_trials_csv(read_trials_csv(path), tmp_path / "plain")
    assert "test_loss" not in written.read_text()
