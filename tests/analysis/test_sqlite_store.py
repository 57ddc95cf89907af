"""Stores in a file: any path that a folder can have, and state directories that are moved."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow import MlflowClient

from analysis.errors import AnalysisError
from analysis.trials.mlflow_store import open_store
from analysis.trials.sqlite_store import (
    artifacts_beside,
    follow_move,
    is_driven,
    store_file,
    store_uri,
)
from sweeps.records.state import State
from trainables.errors import UserError

FOLDERS = ["d?q=1", "d%20pct", "d%", "d#x", "d;x", "a b", "ü'\"", "a:b@c", "back\\slash", "~", "*"]


def make_state(empty_store: Path, root: Path, *sweeps: str) -> MlflowClient:
    """A state directory with a run of each sweep, which has one artifact."""
    root.mkdir(parents=True)
    store = Path(shutil.copy(empty_store, root / "mlflow.db"))
    client = open_store(store_uri(store))
    for name in sweeps:
        location = artifacts_beside(store, name).as_uri()
        run = client.create_run(client.create_experiment(name, artifact_location=location))
        # Not by the client: within a process it remembers where the artifacts of a run were.
        folder = artifacts_beside(store, name) / run.info.run_id / "artifacts"
        assert run.info.artifact_uri == folder.as_uri()
        folder.mkdir(parents=True)
        (folder / "kept.txt").write_text(name)
    return client


def only_run(client: MlflowClient, sweep: str) -> Any:
    experiment = client.get_experiment_by_name(sweep)
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def use(root: Path, sweep: str = "study", driven: str | None = None) -> MlflowClient:
    """Open the store of a state directory, read the artifact of a run and write another."""
    client = open_store(store_uri(root / "mlflow.db"), must_exist=True, driven=driven)
    run_id = only_run(client, sweep).info.run_id
    assert Path(client.download_artifacts(run_id, "kept.txt")).read_text() == sweep
    client.log_text(run_id, "new", "new.txt")
    return client


# URIs.


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_uri_of_a_store_names_its_file_and_no_other(folder: str, tmp_path: Path) -> None:
    file = tmp_path / folder / "mlflow.db"
    uri = store_uri(file)
    assert store_file(uri) == file
    assert sqlalchemy.make_url(uri).database == str(file)
    assert not sqlalchemy.make_url(uri).query
    assert State(file.parent).tracking_uri == uri


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_store_keeps_everything_in_its_own_folder(
    folder: str, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_state(empty_store, tmp_path / folder / "state", "study")
    use(tmp_path / folder / "state")
    assert os.listdir(tmp_path) == [folder]
    assert sorted(os.listdir(tmp_path / folder / "state")) == ["artifacts", "mlflow.db"]


def test_a_store_is_made_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_store(store_uri(tmp_path / "50%20?" / "mlflow.db"))
    assert [path.name for path in tmp_path.rglob("*")] == ["50%20?", "mlflow.db"]


def test_a_uri_that_is_quoted_by_hand_makes_no_folder_of_that_name(
    empty_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "a b").mkdir()
    shutil.copy(empty_store, tmp_path / "a b")
    open_store(f"sqlite:///{tmp_path}/a%20b/mlflow.db", must_exist=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a b"]


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(AnalysisError, match="whose name is not UTF-8; choose another directory"):
        store_uri(root / "mlflow.db")
    with pytest.raises(UserError, match="not UTF-8"):
        _ = State(root).tracking_uri


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////tmp/a.db", "/tmp/a.db"),
        ("sqlite+pysqlite:////tmp/a%3Fb.db?timeout=5", "/tmp/a?b.db"),
        ("sqlite:///a.db", f"{Path.cwd()}/a.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql+psycopg://host/base", None),
        ("http://host:5000", None),
    ],
)
def test_a_uri_from_outside_is_read_as_sqlalchemy_does(uri: str, path: str | None) -> None:
    assert store_file(uri) == (path and Path(path))


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(AnalysisError, match="keeps nothing; name a file"):
        open_store(uri)


# A state directory that was moved.


@pytest.mark.parametrize("folder", ["new", "new%20?", "new#;'"])
def test_a_moved_state_directory_reads_and_writes_at_its_new_place(
    folder: str, empty_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_state(empty_store, tmp_path / "old%", "study", "other")
    shutil.move(tmp_path / "old%", tmp_path / folder)
    with caplog.at_level(logging.WARNING):
        client = use(tmp_path / folder)
        use(tmp_path / folder, "other")
    assert [record.getMessage() for record in caplog.records] == [
        f"the state directory was at {tmp_path / 'old%'} and is at {tmp_path / folder} now,"
        " where 2 runs have their artifacts"
    ]
    location = client.get_experiment_by_name("study").artifact_location
    assert location == (tmp_path / folder / "artifacts" / "study").as_uri()
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_a_copy_is_corrected_and_the_original_is_left_alone(
    empty_store: Path, tmp_path: Path
) -> None:
    make_state(empty_store, tmp_path / "old", "study")
    before = (tmp_path / "old" / "mlflow.db").read_bytes()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    use(tmp_path / "new")
    assert len(list((tmp_path / "new").rglob("new.txt"))) == 1
    assert not list((tmp_path / "old").rglob("new.txt"))
    assert (tmp_path / "old" / "mlflow.db").read_bytes() == before


def test_a_copy_of_the_store_alone_still_finds_the_artifacts(
    empty_store: Path, tmp_path: Path
) -> None:
    make_state(empty_store, tmp_path / "old", "study")
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "old" / "mlflow.db", tmp_path / "new")
    use(tmp_path / "new")
    assert not (tmp_path / "new" / "artifacts").exists()


def test_another_name_of_the_same_directory_changes_nothing(
    empty_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_state(empty_store, tmp_path / "old", "study")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    before = (tmp_path / "old" / "mlflow.db").read_bytes()
    open_store(store_uri(tmp_path / "link" / "mlflow.db"))
    assert (tmp_path / "old" / "mlflow.db").read_bytes() == before
    assert not caplog.records


def test_artifacts_that_never_lay_beside_the_store_stay_where_they_are(
    empty_store: Path, tmp_path: Path
) -> None:
    client = make_state(empty_store, tmp_path / "old")
    for name, location in (
        ("study", tmp_path / "mlruns" / "1"),
        ("s3", "s3://bucket/artifacts/s3"),
    ):
        client.create_experiment(
            name, artifact_location=location.as_uri() if isinstance(location, Path) else location
        )
    shutil.move(tmp_path / "old", tmp_path / "new")
    client = open_store(store_uri(tmp_path / "new" / "mlflow.db"))
    locations = {each.name: each.artifact_location for each in client.search_experiments()}
    assert locations["study"] == (tmp_path / "mlruns" / "1").as_uri()
    assert locations["s3"] == "s3://bucket/artifacts/s3"


def test_a_sweep_that_another_process_runs_is_corrected_by_that_one_only(
    empty_store: Path, tmp_path: Path
) -> None:
    """It may see the directory elsewhere, as a container does."""
    make_state(empty_store, tmp_path / "old", "study")
    shutil.move(tmp_path / "old", tmp_path / "new")
    store = tmp_path / "new" / "mlflow.db"
    folder = tmp_path / "new" / "sweeps" / "study"
    folder.mkdir(parents=True)
    old = (tmp_path / "old" / "artifacts" / "study").as_uri()
    with (folder / "lock.json").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_driven(store, "study")
        client = open_store(store_uri(store))
        assert client.get_experiment_by_name("study").artifact_location == old
        use(tmp_path / "new", driven="study")
    assert is_driven(store, "study") is False
    assert is_driven(store, "absent") is None


def test_a_moved_store_that_may_not_be_written_is_read_and_says_so(
    empty_store: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_state(empty_store, tmp_path / "old", "study")
    shutil.move(tmp_path / "old", tmp_path / "new")

    connect = sqlite3.connect  # the tests may run as root, who may write everywhere
    monkeypatch.setattr(
        sqlite3, "connect", lambda file, **options: connect(f"{file[:-2]}ro", **options)
    )
    follow_move(tmp_path / "new" / "mlflow.db")
    assert "its store may not be written: artifacts are looked for at the old place" in caplog.text
