"""MLflow's own settings, from outside: they do not change what was sent, nor what is served."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow.environment_variables
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from analysis.trials.mlflow_store import DEFAULTS, OF_SERVERS, open_store
from analysis.trials.sqlite_store import artifacts_beside, store_uri
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.server.mlflow_server import own_environment
from sweeps.server.ui import mlflow_ui
from sweeps.tracking.store import ALWAYS
from sweeps.tracking.sweep_runs import SweepRuns
from tests.sweeps.running import BIN
from tests.sweeps.test_tracking import begin, points, runs_in, send
from trainables.persistence.storage import SharedFolder

OURS = {**DEFAULTS, **OF_SERVERS, **ALWAYS}


@pytest.fixture(autouse=True)
def _settings_are_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with closing(Outbox(tmp_path / "outbox.db", "study")) as outbox:
        begin(outbox)
        yield outbox


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    return store_uri(Path(shutil.copy(empty_store, tmp_path / "mlflow.db")))


def fail_to_write(store: Path, table: str) -> None:
    """Let a store refuse what is written to a table, as it does on a disk that fills up."""
    with closing(sqlite3.connect(store)) as database, database:
        database.execute(
            f"CREATE TRIGGER full BEFORE INSERT ON {table}"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )


def mend(store: Path) -> None:
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("DROP TRIGGER full")


def test_mlflow_has_all_settings_that_are_set_for_it() -> None:
    assert {name for name in OURS if not hasattr(mlflow.environment_variables, name)} == set()


@pytest.mark.parametrize("table", ["metrics", "params", "tags"])
def test_a_write_that_fails_does_not_count_as_sent_when_mlflow_is_to_write_later(
    table: str, uri: str, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    open_store(uri)
    runs = SweepRuns(uri, outbox, tmp_path / "artifacts", SharedFolder(tmp_path), tmp_path)
    fail_to_write(tmp_path / "mlflow.db", table)
    record = outbox.trial("a")
    assert record is not None
    with pytest.raises(MlflowException, match="no room"):
        runs.send_trial(record)
    assert outbox.unsent() == ["a"]
    assert len(outbox.evaluations("a", unsent=True)) == 2
    mend(tmp_path / "mlflow.db")
    runs.send_trial(record)
    assert outbox.unsent() == []
    client = MlflowClient(uri)
    assert len(points(client, runs_in(client)[0])) == 2


def test_a_store_in_a_file_has_no_workspaces_whatever_the_environment_says(
    uri: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "elsewhere")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "StaticPool")
    send(uri, outbox)
    with closing(sqlite3.connect(outbox.path.parent / "mlflow.db")) as database:
        kept = database.execute("SELECT workspace FROM experiments WHERE name = 'study'")
        assert kept.fetchall() == [("default",)]
    assert os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] == ""


def test_a_long_note_is_cut_and_keeps_no_run_from_being_sent(
    uri: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    outbox.record(TrialEvent("a", "failed", reason="long " * 4_000))
    send(uri, outbox)
    (run,) = runs_in(MlflowClient(uri))
    assert len(run.data.tags["failure"]) == 8_000
    assert outbox.unsent() == []


def test_what_the_user_may_choose_stays_as_it_is(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    open_store(uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == DEFAULTS["MLFLOW_HTTP_REQUEST_TIMEOUT"]


# The server of `sweeps ui`.

MISLEADING = {
    "MLFLOW_ARTIFACTS_ONLY": "true",
    "MLFLOW_STATIC_PREFIX": "/prefix",
    "MLFLOW_GUNICORN_OPTS": "--reload",
    "MLFLOW_WORKERS": "4",
    "MLFLOW_HOST": "0.0.0.0",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI": "sqlite:////dev/null/replica.db",
    "MLFLOW_REGISTRY_STORE_URI": "sqlite:////dev/null/registry.db",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "MLFLOW_EXPOSE_PROMETHEUS": "/dev/null/metrics",
    "MLFLOW_ENABLE_WORKSPACES": "true",
    "MLFLOW_WORKSPACE": "elsewhere",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "/dev/null/root",
}


def test_the_ui_serves_a_store_as_it_is_whatever_mlflow_is_told(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a folder whose name would be another path in a URI."""
    root = tmp_path / "50%20?x#y"
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    client = open_store(store_uri(root / "mlflow.db"))
    location = artifacts_beside(root / "mlflow.db", "study").as_uri()
    run = client.create_run(client.create_experiment("study", artifact_location=location))
    client.log_text(run.info.run_id, "kept", "kept.txt")
    for name, value in MISLEADING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with mlflow_ui(store_uri(root / "mlflow.db"), log_file=root / "ui.log") as url:
        assert url.startswith("http://127.0.0.1:")
        found = ask(url, "/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=study")
        assert json.loads(found)["experiment"]["artifact_location"] == location
        asked = urllib.parse.urlencode({"path": "kept.txt", "run_uuid": run.info.run_id})
        assert ask(url, f"/get-artifact?{asked}") == b"kept"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(url, "/", host="elsewhere.example.com")
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    assert (root / "ui.log").stat().st_mode & 0o777 == 0o600


def ask(url: str, path: str, **headers: str) -> bytes:
    asked = urllib.request.Request(url + path, headers=headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def test_the_server_keeps_the_ways_to_databases_and_artifacts() -> None:
    given = {"MLFLOW_S3_ENDPOINT_URL": "http://s3", "MLFLOW_MYSQL_SSL_CA": "ca", "HOME": "/home"}
    made = own_environment("sqlite:////a.db", MISLEADING | given)
    assert made.items() >= given.items()
    assert not made.keys() & MISLEADING.keys()
    assert made["MLFLOW_BACKEND_STORE_URI"] == "sqlite:////a.db"


def test_a_setting_that_mlflow_cannot_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    done = subprocess.run(
        [str(BIN / "analysis"), "rankings", "study", "--state", str(tmp_path)],
        env={**os.environ, "MLFLOW_LOGGING_LEVEL": "nonsense"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "analysis: MLflow cannot be loaded: Unknown level: 'NONSENSE'; look at what the environment"
        " sets by MLFLOW_ variables\n"
    )
