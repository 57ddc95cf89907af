"""A sweep whose driver was killed: it is not called RUNNING where people look."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from analysis import load_trials
from analysis.command import main as analysis
from sweeps.cli.main import main
from sweeps.cluster.submission import NOT_KEPT
from sweeps.execution.overview import LocalSweep, overview, settle_orphans
from sweeps.records.events import TrialEvent
from sweeps.records.lock import only_driver
from sweeps.records.outbox import Outbox
from sweeps.records.state import State
from sweeps.tracking.sweep_runs import SweepRuns
from sweeps.tracking.views import saved_views
from tests.sweeps.job_clients import ForgetfulClient
from tests.sweeps.test_tracking import SWEEP, content, progressed, runs_in
from trainables.errors import UserError
from trainables.persistence.storage import SharedFolder

COMMAND = "sweeps run letters"
SAID = f"killed  the driver of study was killed; continue it by its command ({COMMAND})"


@pytest.fixture
def state(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """As a driver leaves it that is killed: one trial was done, one ran, and MLflow has both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STATE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state = State(tmp_path / "state")
    folder = state.sweep("study")
    with only_driver(folder, "study"), closing(Outbox(folder / "outbox.db", "study")) as outbox:
        shutil.copy(empty_store, state.root / "mlflow.db")
        about = {**SWEEP, "views": saved_views([])}
        outbox.describe(about, {key: content(key) for key in "abc"})
        for key in "ab":
            outbox.record(TrialEvent(key, "started", time_ms=1_000))
            outbox.record(progressed(key, 2, time_ms=1_010))
        outbox.record(TrialEvent("a", "finished", time_ms=1_020))
        artifacts = state.root / "artifacts" / "study"
        runs = SweepRuns(
            state.tracking_uri, outbox, artifacts, SharedFolder(folder), state.reports("study")
        )
        for key in outbox.unsent():
            record = outbox.trial(key)
            assert record is not None
            runs.send_trial(record)
        runs.send_sweep(outbox.sweep)
    return state


def statuses(state: State) -> dict[str, str]:
    """By name, as MLflow shows them."""
    client = MlflowClient(state.tracking_uri)
    runs = [*runs_in(client), *runs_in(client, "sweep")]
    return {run.info.run_name: run.info.status for run in runs}


RUNNING = {"a": "FINISHED", "b": "RUNNING", "sweep study": "RUNNING"}
KILLED = {"a": "FINISHED", "b": "KILLED", "sweep study": "KILLED"}


def test_the_overview_tells_who_runs_and_who_was_killed(state: State) -> None:
    killed = LocalSweep("study", "KILLED", 1, 3, 0, COMMAND, is_orphaned=True)
    assert overview(state) == [killed]
    with only_driver(state.sweep("study"), "study"):
        assert overview(state) == [LocalSweep("study", "RUNNING", 1, 3, 0, COMMAND)]
    with closing(Outbox(state.sweep("study") / "outbox.db", "study")) as outbox:
        outbox.kill_running()
        outbox.end("FAILED")
    assert overview(state) == [LocalSweep("study", "FAILED", 1, 3, 0, COMMAND)]
    (state.sweep("study") / "outbox.db").write_bytes(b"nonsense" * 1_000)
    assert overview(state) == [LocalSweep("study", "?", 0, 0, 0, "")]


def test_settling_makes_the_pages_of_mlflow_true(state: State) -> None:
    said: list[str] = []
    assert statuses(state) == RUNNING
    settle_orphans(["another"], state, state.tracking_uri, said.append)
    assert (statuses(state), said) == (RUNNING, [])
    with only_driver(state.sweep("study"), "study"):
        settle_orphans(["study"], state, state.tracking_uri, said.append)
    assert (statuses(state), said) == (RUNNING, [])
    settle_orphans(["study"], state, state.tracking_uri, said.append)
    assert (statuses(state), said) == (KILLED, [SAID])
    settle_orphans(["study"], state, state.tracking_uri, said.append)
    assert said == [SAID]


def test_the_ui_is_served_when_its_pages_are_true(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[dict[str, str]] = []

    @contextlib.contextmanager
    def serve(*_: Any, **__: Any) -> Iterator[str]:
        served.append(statuses(state))
        yield "http://127.0.0.1:5000"

    def end() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeps.server.ui.mlflow_ui", serve)
    monkeypatch.setattr(signal, "pause", end)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    done = CliRunner().invoke(main, ["ui"])
    assert done.exit_code == 0, done.output
    assert served == [KILLED]
    assert done.output.splitlines()[0] == SAID


def test_the_ui_is_served_too_where_a_sweep_cannot_be_settled(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("its storage is away")

    monkeypatch.setattr("sweeps.execution.overview.sync_sweep", refuse)
    said: list[str] = []
    settle_orphans(["study"], state, state.tracking_uri, said.append)
    assert said == ["stale   study is shown as running, which it is not: its storage is away"]


def test_status_shows_the_state_directory_where_there_is_no_cluster(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise UserError("the cluster does not answer")

    monkeypatch.setattr("sweeps.cluster.jobs.Cluster", refuse)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    done = CliRunner().invoke(main, ["status"])
    assert done.exit_code == 0, done.output
    head, row, line = done.output.splitlines()
    assert head.split() == ["sweep", "status", "done", "failed"]
    assert row.split() == ["study", "KILLED", "1/3", "0"]
    assert line == SAID
    done = CliRunner().invoke(main, ["status", "study", "--json"])
    (found,) = json.loads(done.output)
    assert (found["sweep"], found["status"], found["is_orphaned"]) == ("study", "KILLED", True)
    for arguments in (["absent"], ["--address", "http://127.0.0.1:9"], ["--state", "elsewhere"]):
        done = CliRunner().invoke(main, ["status", *arguments])
        assert done.exit_code == 2
        assert "the cluster does not answer" in done.stderr
    done = CliRunner().invoke(main, ["status", "absent"])
    assert "there is no sweep 'absent' in state (there are: study), and the cluster" in done.stderr


@pytest.mark.parametrize("cluster", ["absent", "without it"])
@pytest.mark.parametrize("command", ["logs", "stop", "resume"])
def test_what_is_asked_of_a_cluster_tells_of_the_sweep_here(
    command: str, cluster: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client(ForgetfulClient):
        said = NOT_KEPT

        def __init__(self, address: str) -> None:
            if cluster == "absent":
                raise ConnectionError("Failed to connect to Ray")

    monkeypatch.setattr("sweeps.cluster.jobs.JobClient", Client)
    done = CliRunner().invoke(main, [command, "study"])
    assert done.exit_code == 2
    here = "sweeps: study is a sweep of this machine, in state: KILLED, 1 of 3 trials done"
    assert done.stderr.startswith(here)
    assert f"`sweeps status study` shows it, `{COMMAND}` lets it go on" in done.stderr
    done = CliRunner().invoke(main, [command, "other"])
    assert done.exit_code == 2
    assert "this machine" not in done.stderr
    with only_driver(state.sweep("study"), "study"):
        done = CliRunner().invoke(main, [command, "study"])
    assert "RUNNING" in done.stderr
    assert "Ctrl-C where it runs stops it" in done.stderr


def test_an_analysis_calls_what_was_killed_so(state: State) -> None:
    trials = load_trials("study", state.tracking_uri)
    assert dict(zip(trials.table["name"], trials.table["status"], strict=True)) == {
        "a": "FINISHED",
        "b": "KILLED",
    }
    assert trials.status == "KILLED"
    with only_driver(state.sweep("study"), "study"):
        trials = load_trials("study", state.tracking_uri)
        assert {*trials.table["status"]} == {"FINISHED", "RUNNING"}
        assert trials.status == "RUNNING"
    assert statuses(state) == RUNNING  # an analysis writes nothing of that


def test_a_report_says_that_its_sweep_was_killed(state: State) -> None:
    done = CliRunner().invoke(analysis, ["report", "study"])
    assert done.exit_code == 0, done.output
    page = (state.reports("study") / "report.md").read_text()
    assert "The sweep is KILLED: what follows is about the trials so far." in page
