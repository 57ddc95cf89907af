"""The last lines of `sweeps run`: what they name works where they are read."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from analysis.errors import AnalysisError
from analysis.trials.sqlite_store import store_uri
from sweeps.cli.main import main
from sweeps.execution import conclusion, service
from sweeps.execution.run import Outcome
from sweeps.planning.planner import make_plan
from sweeps.process.stopping import Stop
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.state import State
from sweeps.tracking.description import describe_sweep, describe_trial
from sweeps.tracking.store import mlflow_client, sweep_experiments
from tests.analysis.tuned import suggested
from tests.analysis.tuned import sweep as searched
from tests.sweeps.test_tracking import evaluation
from trainables.persistence.storage import SharedFolder

SWEEP = """
name: study
corpus: embedded
training: {max_steps: 2, eval_every: 2}
arms: [{model: {variant: bigram}}]
"""
Lines = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # all is trained: nothing needs it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweeps", "run", "sweep.yaml"])
    for variable in ("SWEEPS_STATE", "MLFLOW_TRACKING_URI", "SWEEPS_UI_ADDRESS", "SWEEPS_AGAIN"):
        monkeypatch.delenv(variable, raising=False)
    Path("sweep.yaml").write_text(SWEEP)


def train_all() -> None:
    """Let the outbox know every trial as finished."""
    state = State(Path("state").absolute())
    made = make_plan("sweep.yaml", [], state)
    with closing(Outbox(state.sweep("study") / "outbox.db", "study")) as outbox:
        trials = {trial.key: describe_trial(made, trial) for trial in made.trials}
        outbox.describe({**describe_sweep(made), "storage": None}, trials)
        for key in trials:
            outbox.record(TrialEvent(key, "started"))
            outbox.record(TrialEvent(key, "progressed", 2, [evaluation(2)], hardware="cpu"))
            outbox.record(TrialEvent(key, "finished"))


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["run", "sweep.yaml", *arguments])
    assert "Traceback" not in done.output
    return done


def said(result: Result) -> dict[str, str]:
    """The lines by their first word."""
    return {line[:8].strip(): line[8:] for line in result.output.splitlines()}


# With a real store.


def test_the_store_of_the_state_directory_is_browsed_by_the_command_alone(
    empty_store: Path,
) -> None:
    train_all()
    shutil.copy(empty_store, "state/mlflow.db")
    done = run()
    assert done.exit_code == 0, done.output
    assert said(done)["browse"] == "sweeps ui study"


@pytest.mark.parametrize("way", ["option", "environment", "sweep file"])
def test_another_store_is_named_by_the_command_that_browses_it(
    way: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_all()
    Path("of us").mkdir()
    shutil.copy(empty_store, "of us/runs.db")
    uri = "sqlite:///of us/runs.db"
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    elif way == "sweep file":
        Path("sweep.yaml").write_text(f"{SWEEP}tracking: {{uri: '{uri}'}}\n")
    done = run(*(["--tracking-uri", uri] if way == "option" else []))
    assert done.exit_code == 0, done.output
    browse = shlex.split(said(done)["browse"])
    assert browse == ["sweeps", "ui", "study", "--tracking-uri", uri]
    client = mlflow_client(browse[-1], must_exist=True)
    assert [*sweep_experiments(client, "study")] == ["study"]
    beside = Path("of us/artifacts/study").absolute().as_uri()
    assert client.get_experiment_by_name("study").artifact_location == beside
    assert not Path("mlruns").exists()
    assert not Path("state/mlflow.db").exists()


@pytest.mark.parametrize(
    ("seeds", "asks"), [(1, "chance? One seed cannot tell"), (2, "is that chance?")]
)
def test_a_grid_ends_with_what_its_settings_did_and_how_to_judge_it(
    seeds: int, asks: str, empty_store: Path
) -> None:
    grid = SWEEP.replace("bigram}", "factorized}, grid: {model.n_embd: [2, 4]}")
    Path("sweep.yaml").write_text(f"{grid}replicates: {seeds}\n")
    train_all()
    shutil.copy(empty_store, "state/mlflow.db")
    done = run()
    assert done.exit_code == 0, done.output
    assert said(done)["means"] == "n_embd: 2 3.7500, 4 3.7500 (1 loss each)"
    assert said(done)["next"] == f"analysis conclusions study  # {asks}"


def test_a_search_has_no_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picked = [suggested("s", n, {"n_embd": n}, 2.0 + n) for n in range(3)]
    outcome = Outcome(Stop(), tmp_path, SharedFolder(tmp_path), "")
    monkeypatch.setattr(conclusion, "load_trials", lambda *_: searched(picked))
    conclusion.rank("tuned", outcome)
    assert outcome.ranking is not None
    assert outcome.means == []


def test_what_is_to_judge_is_said_at_the_end_and_where_there_is_something(
    ended: Callable[..., Result],
) -> None:
    means = ["a: 1 2.0, 2 2.1 (3 losses each)", "b: x 2.0, y 2.1 (3 losses each)"]
    given = {"ranking": RANKING, "means": means}
    done = ended("http://mlflow:5000", "--state", "my state", status="FAILED", **given)
    printed = done.output.splitlines()
    assert [line[8:] for line in printed if line.startswith("means ")] == means
    assert shlex.split(said(done)["next"], comments=True) == [
        *("analysis", "conclusions", "study"),
        *("--tracking-uri", "http://mlflow:5000", "--state", "my state"),
    ]
    assert "next" not in said(ended("http://mlflow:5000", status="KILLED", **given))
    assert "next" not in said(ended("http://mlflow:5000", status="FINISHED", ranking=RANKING))


def test_runs_that_cannot_be_sent_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    train_all()
    monkeypatch.setattr("sweeps.tracking.delivery.NO_PROGRESS_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = "http://127.0.0.1:9"
    done = run("--tracking-uri", nowhere)
    assert done.exit_code == 1
    lines = said(done)
    assert lines["unsent"].startswith("2 runs are not in MLflow yet, they are kept (")
    assert lines["send"] == f"sweeps sync study --tracking-uri {nowhere}"
    assert "browse" not in lines


# With results that are given.


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a sweep that ends as it is told."""

    def run_as(uri: str, *arguments: str, **fields: Any) -> Result:
        outcome = Outcome(Stop(), tmp_path, SharedFolder(tmp_path), uri, **fields)
        monkeypatch.setattr(service, "run_sweep", lambda *_: outcome)
        return run(*arguments)

    return run_as


HIDDEN = ("train_loss", "best_val_loss", "training_seconds", "left_out", "run_ids")
RANKING = pd.DataFrame({name: [1.0] for name in ("val_loss", *HIDDEN)})


def test_a_server_is_browsed_at_its_address(ended: Callable[..., Result]) -> None:
    done = ended("http://mlflow:5000/", status="FINISHED", ranking=RANKING, experiment_id="7")
    assert done.exit_code == 0
    assert said(done)["browse"] == (
        "http://mlflow:5000/#/experiments/7/runs?workflowType=machine_learning"
        "&compareRunsMode=TABLE&viewStateShareKey=ranking"
    )


def test_people_may_know_the_server_by_another_address(
    ended: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_UI_ADDRESS", "http://127.0.0.1:5000")
    done = ended("http://mlflow:5000", status="FINISHED", means=["pe_type: rope 2.0"])
    lines = said(done)
    assert lines["browse"] == "http://127.0.0.1:5000"
    command = lines["next"].partition("  #")[0]
    assert command == "analysis conclusions study --tracking-uri http://127.0.0.1:5000"


def test_a_job_of_a_cluster_goes_on_by_its_own_command(
    ended: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_AGAIN", "sweeps resume study")
    lines = said(ended("http://mlflow:5000", status="KILLED", unsent=3, problem="refused"))
    assert (lines["send"], lines["again"]) == ("sweeps resume study", "sweeps resume study")


@pytest.mark.parametrize(
    "uri", ["http://me:hidden@mlflow:5000", "postgresql+psycopg://me:hidden@host/base"]
)
@pytest.mark.parametrize("unsent", [0, 3])
def test_no_line_shows_a_password_of_the_environment(
    uri: str, unsent: int, ended: Callable[..., Result]
) -> None:
    done = ended(uri, status="FAILED", unsent=unsent)
    assert done.exit_code == 1
    assert "hidden" not in done.output
    lines = said(done)
    assert lines["again"] == "sweeps run sweep.yaml"
    if unsent:
        assert lines["send"] == "sweeps sync study"
    else:
        in_browser = "http://mlflow:5000"
        assert lines["browse"] == (in_browser if uri.startswith("http") else "sweeps ui study")


def test_a_ranking_that_cannot_be_made_is_said(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_all()
    shutil.copy(empty_store, "state/mlflow.db")

    def refuse(*_: object) -> None:
        raise AnalysisError("the store is gone")

    monkeypatch.setattr(conclusion, "load_trials", refuse)
    done = run()
    assert done.exit_code == 1
    assert said(done)["tables"] == "there are none: the store is gone"


def test_the_state_directory_of_any_name_is_given_to_the_command(empty_store: Path) -> None:
    Path("50%20 ?").mkdir()
    train_all()
    shutil.move("state", "50%20 ?/state")
    shutil.copy(empty_store, "50%20 ?/state/mlflow.db")
    done = run("--state", "50%20 ?/state")
    assert done.exit_code == 0, done.output
    assert shlex.split(said(done)["browse"]) == [
        "sweeps",
        "ui",
        "study",
        "--state",
        "50%20 ?/state",
    ]
    assert (
        store_uri(Path("50%20 ?/state/mlflow.db").absolute())
        == State(Path("50%20 ?/state").absolute()).tracking_uri
    )
    assert {path.name for path in Path().iterdir()} == {"50%20 ?", "sweep.yaml"}


def test_what_failed_is_said_in_a_line_each(ended: Callable[..., Result]) -> None:
    """However many lines an exception has."""
    train_all()
    with closing(Outbox(Path("state/sweeps/study/outbox.db"), "study")) as outbox:
        (record,) = outbox.trials()
    failed = [replace(record, status="FAILED", reason="RuntimeError: multi\nline\nboom")]
    done = ended(
        "http://mlflow:5000",
        status="FAILED",
        failed=failed,
        unsent=1,
        problem="gone\naway",
        notes={"a": "cut\nshort"},
        exhausted=["study x: no\nmore"],
        unranked="not\nnow",
    )
    lines = said(done)
    assert done.exit_code == 1
    assert lines["failed"] == r"1 x RuntimeError: multi\nline\nboom"
    assert lines["lost"] == r"cut\nshort"
    assert lines["search"] == r"study x: no\nmore"
    assert lines["tables"] == r"there are none: not\nnow"
    assert lines["unsent"].endswith(r"(gone\naway)")
    assert {*lines} == {"failed", "", "lost", "search", "tables", "unsent", "send", "again"}
