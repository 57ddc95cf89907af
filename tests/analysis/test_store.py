"""A store that is not there yet, and one that cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from analysis.errors import AnalysisError
from analysis.trials.loading import load_trials
from analysis.trials.mlflow_store import open_store
from analysis.trials.sqlite_store import store_uri


def test_a_store_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    code = f"from analysis.trials.mlflow_store import open_store; open_store('sqlite:///{store}')"
    maker = subprocess.Popen([sys.executable, "-c", code])
    deadline_s = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(maker.pid, signal.SIGKILL)  # in the middle of MLflow's migrations
    maker.wait()
    assert not store.exists()
    client = open_store(f"sqlite:///{store}")
    assert client.search_experiments(max_results=1)
    client.create_experiment("kept")
    again = open_store(f"sqlite:///{store}", must_exist=True)
    assert again.get_experiment_by_name("kept")


def test_an_unknown_experiment_is_refused_with_the_nearest_and_without_mlflows_own(
    empty_store: Path, tmp_path: Path
) -> None:
    store = store_uri(Path(shutil.copy(empty_store, tmp_path / "mlflow.db")))
    with pytest.raises(AnalysisError, match=r"no experiment 'tinny'; there are: none$"):
        load_trials("tinny", store)
    for name in ("tiny", "other"):
        open_store(store).create_experiment(name)
    with pytest.raises(AnalysisError, match=r"no experiment 'tinny'; did you mean 'tiny'\?$"):
        load_trials("tinny", store)
    with pytest.raises(AnalysisError, match=r"no experiment 'study'; there are: other, tiny$"):
        load_trials("study", store)


def test_what_a_database_refuses_is_raised_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "mlflow.db"
    client = open_store(f"sqlite:///{store}")
    run = client.create_run(client.create_experiment("kept"))
    with sqlite3.connect(store) as database:  # stands for a disk that is full
        database.execute("ALTER TABLE tags RENAME TO gone")
    capfd.readouterr()
    with pytest.raises(MlflowException, match="tags"):
        client.set_tag(run.info.run_id, "name", "value")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg://127.0.0.1:9/base",  # MLflow itself tries for 100 s
        "postgresql+psycopg://127.0.0.1:port/base",
        "postgresql+psycopg://",
        "postgresql+nodriver://127.0.0.1/base",
        "http://127.0.0.1:9",
        "http://127.0.0.1:99999",
        "http://[",
        "http://",
        "ftp://127.0.0.1",
        "nonsense",
        "://",
        "sqlite:////dev/null/mlflow.db",
    ],
)
def test_a_store_that_does_not_answer_is_said_in_a_line_and_soon(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    start_s = time.monotonic()
    with pytest.raises(AnalysisError, match=r"\A.*\Z") as refused:
        open_store(uri)
    assert f"the MLflow store {uri} does not answer: " in str(refused.value)
    assert time.monotonic() - start_s < 50
    assert not list(tmp_path.iterdir())
