"""New stores have the tables of MLflow's migrations, whichever way they were made."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from analysis.trials import mlflow_store
from analysis.trials.empty_store import TABLES, tables_of, write_empty_store
from analysis.trials.mlflow_store import migrate, open_store


def migrated_tables(folder: Path) -> str:
    open_store(f"sqlite:///{folder / 'any.db'}")  # loads MLflow with our settings
    migrate(folder / "migrated.db")
    return tables_of(folder / "migrated.db")


def statements(tables: str) -> list[list[str]]:
    """The statements, whose order differs from one migration to the next, as do their lines."""
    return sorted(
        sorted(line.strip(" \t,") for line in statement.splitlines())
        for statement in tables.split(";\n")
    )


def test_the_tables_are_those_of_the_migrations(tmp_path: Path) -> None:
    assert statements(TABLES.read_text()) == statements(migrated_tables(tmp_path))


def test_a_new_store_is_made_without_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(f"sqlite:///{tmp_path / 'loaded.db'}")
    from mlflow.store.db import utils

    monkeypatch.setattr(utils, "_initialize_tables", lambda engine: pytest.fail("it migrates"))
    client = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    run = client.create_run(client.create_experiment("a"))
    assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_tables_of_another_version_give_way_to_the_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_old(path: Path) -> None:
        write_empty_store(path)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")

    monkeypatch.setattr(mlflow_store, "write_empty_store", write_old)
    client = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    found, ours = tables_of(tmp_path / "store.db"), TABLES.read_text()
    assert statements(found) == statements(ours)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        TABLES.write_text(migrated_tables(Path(name)))
