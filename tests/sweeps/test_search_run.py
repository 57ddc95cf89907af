"""A search with a real Ray and a real store, whose driver is killed: what it leaves in MLflow."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from analysis import load_trials
from sweeps.records.outbox import Outbox
from tests.sweeps.running import SweepFolder

SEARCH = """
name: searched
corpus: file:play.txt
training: {max_steps: 120, eval_every: 20, batch_size: 32, block_size: 8}
replicates: 2
arms:
  - model: {variant: bigram}
  - model: {variant: attention}
    grid: {model.pe_type: [rope, randn]}
    search:
      model.n_embd: {low: 8, high: 32, step: 8}
      training.learning_rate: {low: 1e-3, high: 1, log: true}
search:
  trials: 20
  stopping: {rule: asha, first_step: 40, reduction: 2}
  confirm: {top: 1, replicates: 2}
"""
TRIALS = (2 + 2) + 20 * 2 + 2 * 2  # the bigram with the seeds of the winners as well
KILLS = 2


def told(folder: SweepFolder) -> list[optuna.trial.FrozenTrial]:
    """What Optuna's own reader finds, without what was not trained."""
    journal = optuna.storages.journal.JournalFileBackend(str(folder.folder / "studies.journal"))
    storage = optuna.storages.JournalStorage(journal)
    return [
        trial
        for study in optuna.get_all_study_summaries(storage)
        for trial in storage.get_all_trials(study._study_id)
        if "rejected" not in trial.user_attrs
    ]


def ended_trials(folder: SweepFolder) -> int:
    """How many trials are finished or stopped, by the outbox."""
    outbox = folder.folder / "outbox.db"
    if not outbox.exists():
        return 0
    with contextlib.closing(sqlite3.connect(outbox)) as box:
        query = "SELECT COUNT(*) FROM trials WHERE status IN ('FINISHED', 'STOPPED')"
        try:
            (count,) = box.execute(query).fetchone()
        except sqlite3.OperationalError:  # its tables are being made
            return 0
    return int(count)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A search whose driver was killed at random, and run again each time."""
    made = SweepFolder(tmp_path_factory.mktemp("searched"), SEARCH)
    chance = random.Random(11)
    ended = 0
    for _ in range(KILLS):
        driver = made.start()
        ended += chance.randint(5, 14)  # trials, of 48
        driver.wait_for(lambda least=ended: ended_trials(made) >= least)
        time.sleep(chance.uniform(0, 0.3))
        driver.kill()
    last = made.run()
    assert last.returncode == 0, last.stdout + last.stderr
    assert last.stderr == ""
    return made


def test_a_search_that_was_killed_has_lost_and_doubled_nothing(folder: SweepFolder) -> None:
    runs = folder.by_key()
    assert len(runs) == TRIALS
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    stages = Counter(run.data.tags.get("stage", "") for run in runs.values())
    assert stages == {"": 4, "search": 40, "confirm": 4}
    found = told(folder)
    assert len(found) == 20
    assert {one.state.name for one in found} == {"COMPLETE", "PRUNED"}
    for run in runs.values():
        steps = [step for step, _ in folder.curve(run)]
        assert steps == list(range(20, steps[-1] + 1, 20)), "each step once"
        assert (steps[-1] < 120) == ("stopped" in run.data.tags)
    (parent,) = folder.runs("sweep")
    assert parent.info.status == "FINISHED"


def test_what_optuna_was_told_is_the_mean_of_the_runs(folder: SweepFolder) -> None:
    by_suggestion: dict[tuple[str, int], list[Any]] = {}
    for run in folder.by_key().values():
        if run.data.tags.get("stage") == "search":
            name = (run.data.tags["study"], int(run.data.tags["suggestion"]))
            by_suggestion.setdefault(name, []).append(run)
    assert len(by_suggestion) == 20
    ended = [one for one in told(folder) if one.state.name == "COMPLETE"]
    values = sorted(one.value for one in ended)
    means = sorted(
        sum(run.data.metrics["val_loss"] for run in runs) / 2
        for runs in by_suggestion.values()
        if "stopped" not in runs[0].data.tags
    )
    assert values == pytest.approx(means)
    for runs in by_suggestion.values():
        assert [sorted(int(run.data.params["seed"]) for run in runs)] == [[1337, 1338]]
        assert len({run.data.tags.get("stopped") for run in runs}) == 1, "seeds share their fate"


def test_a_run_says_its_suggestion_its_rung_and_why_it_was_stopped(folder: SweepFolder) -> None:
    runs = folder.by_key().values()
    stopped = [run for run in runs if "stopped" in run.data.tags]
    assert len(stopped) >= 6
    for run in stopped:
        rung = run.data.tags["rung"]
        assert run.data.tags["stopped"] == f"asha: not among the best 1/2 at step {rung}"
        assert (
            f"Stopped early: asha: not among the best 1/2 at step {rung}"
            in (run.data.tags["mlflow.note.content"])
        )
        assert int(rung) == folder.curve(run)[-1][0]
    (parent,) = folder.runs("sweep")
    about = json.loads(parent.data.tags["search"])
    assert about["confirm_seeds"] == [1339, 1340]
    assert about["arms"][0] is None
    assert set(about["spaces"][about["arms"][1]]) == {"n_embd", "learning_rate"}
    assert set(load_trials("searched", str(folder.client.tracking_uri)).table["stage"]) == {
        "", "search", "confirm"
    }  # fmt: skip


def test_the_winners_are_trained_once_more_with_seeds_of_their_own(folder: SweepFolder) -> None:
    runs = list(folder.by_key().values())
    for study in ("attention pe_type=rope", "attention pe_type=randn"):
        mine = [run for run in runs if run.data.tags.get("study") == study]
        ended: dict[str, list[Any]] = {}
        for run in mine:
            if run.data.tags["stage"] == "search" and "stopped" not in run.data.tags:
                ended.setdefault(run.data.tags["suggestion"], []).append(run)
        best = min(ended.values(), key=lambda two: sum(r.data.metrics["val_loss"] for r in two))
        confirming = [run for run in mine if run.data.tags["stage"] == "confirm"]
        tuned = ("n_embd", "learning_rate")
        assert {tuple(run.data.params[name] for name in tuned) for run in confirming} == {
            tuple(best[0].data.params[name] for name in tuned)
        }
        assert sorted(run.data.params["seed"] for run in confirming) == ["1339", "1340"]
        assert {run.data.tags["rank"] for run in confirming} == {"1"}


def test_the_same_command_with_a_larger_budget_goes_on(folder: SweepFolder) -> None:
    before = folder.by_key()
    again = folder.run()
    assert again.returncode == 0
    assert f"searched: {TRIALS} done\n" in again.stdout
    assert "search  20 of 20 suggestions made so far" in again.stdout
    more = folder.run("run", "sweep.yaml", "search.trials=24")
    assert more.returncode == 0, more.stdout + more.stderr
    after = folder.by_key()
    kept = {key for key, run in before.items() if run.data.tags.get("stage") != "confirm"}
    assert kept <= after.keys()
    assert len(after) == TRIALS + 4 * 2
    assert len(told(folder)) == 24
    outbox = Outbox(folder.folder / "outbox.db", "searched")
    try:
        assert {one.status for one in outbox.trials()} == {"FINISHED", "STOPPED"}
    finally:
        outbox.close()


def test_the_best_of_a_search_writes_text(folder: SweepFolder) -> None:
    said = folder.run("sample", "searched/best", "--length", "20")
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_lost_outbox_comes_back_with_what_was_stopped(folder: SweepFolder) -> None:
    before = {key: run.data.tags.get("stopped") for key, run in folder.by_key().items()}
    for file in Path(folder.folder).glob("outbox.db*"):
        file.unlink()
    again = folder.run("run", "sweep.yaml", "search.trials=24")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {key: run.data.tags.get("stopped") for key, run in folder.by_key().items()} == before
