"""What is shown of errors and addresses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event

from analysis.text.messages import address_of, first_line, without_password
from analysis.trials.mlflow_store import open_store
from analysis.trials.sqlite_store import store_uri
from sweeps.tracking.delivery import _reason

FULL = "database or disk is full"
AUTOFLUSH = (
    "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block"
    " if this flush is occurring prematurely)\n"
)
STATEMENT = (
    "\n[SQL: INSERT INTO runs (name) VALUES (?)]\n[parameters: ('a',)]\n(Background on this error"
)


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        f"(sqlite3.OperationalError) {FULL}{STATEMENT}",
        f"{AUTOFLUSH}(sqlite3.OperationalError) {FULL}{STATEMENT}",
        f"{AUTOFLUSH}(psycopg.errors.DiskFull) {FULL}{STATEMENT}",
        "This Session's transaction has been rolled back due to a previous exception during"
        " flush. To begin a new transaction with this Session, first issue Session.rollback()."
        f" Original exception was: {AUTOFLUSH}(sqlite3.OperationalError) {FULL}{STATEMENT}",
        f"\n\n{FULL}\nand more",
    ],
)
def test_a_reason_is_what_the_database_said(text: str) -> None:
    assert first_line(MlflowException(text)) == FULL
    served = {"error_code": "INTERNAL_ERROR", "message": text.strip()}
    assert first_line(RestException(served)) == f"INTERNAL_ERROR: {FULL}"


def test_a_full_disk_is_called_so_in_every_request(empty_store: Path, tmp_path: Path) -> None:
    """As MLflow really says it, which depends on the request."""
    uri = store_uri(Path(shutil.copy(empty_store, tmp_path / "mlflow.db")))
    client = open_store(uri)
    experiment_id = client.create_experiment("study")
    run_id = client.create_run(experiment_id).info.run_id
    engine = SqlAlchemyStore._engine_map[uri]
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _no_more_pages(connection: object, _: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[attr-defined]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]

    def repeat(request: Callable[[int], object]) -> None:
        for number in range(500):
            request(number)

    for request in (
        lambda number: client.set_tag(run_id, f"tag {number}", "long " * 900),
        lambda number: client.create_run(experiment_id),
        lambda number: client.create_experiment(f"study {number}"),
        lambda number: client.update_run(run_id, name=f"{number} " * 100),
    ):
        with pytest.raises(MlflowException) as failed:
            repeat(request)
        assert (_reason(failed.value), first_line(failed.value)) == (FULL, FULL)


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as failed:
        shutil.copy(tmp_path / "file", tmp_path / "file" / "below")
    assert _reason(failed.value) == f"Not a directory: {tmp_path}/file/below"


def test_an_error_without_words_has_its_name() -> None:
    assert first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hidden@host:5000", "http://me:...@host:5000"),
        ("https://me:hid@den@host", "https://me:...@host"),
        ("http://:hidden@host", "http://:...@host"),
        ("postgresql+psycopg://me:hid/den@host:5432/base", "postgresql+psycopg://me:...@host:5432/base"),
        ("postgresql+psycopg://me:12/34@host/base", "postgresql+psycopg://me:...@host/base"),
        ("postgresql://host/base?user=me&password=hidden&x=1",
         "postgresql://host/base?user=me&password=...&x=1"),
        ("https://hidden@host:5000/x", "https://...@host:5000/x"),
        ("//me:hidden@host/x is no store", "//...@host/x is no store"),
        ("mysql://host/base?ssl_passwd=hidden", "mysql://host/base?ssl_passwd=..."),
        ("no answer of http://me:hidden@host/api (x)", "no answer of http://me:...@host/api (x)"),
    ],
)  # fmt: skip
def test_a_password_is_not_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert first_line(OSError(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////tmp/a:b@c/mlflow.db",
        "http://host:5000/#/experiments/1?name=a@b",
        "postgresql://me@host/base",
        "s3://bucket/folder",
        "name: a@b",
    ],
)
def test_what_has_no_password_is_shown_as_it_is(text: str) -> None:
    assert without_password(text) == text


@pytest.mark.parametrize("user", ["", "me@", "me:hidden@", ":hidden@", "me:hid@den@"])
def test_a_link_names_neither_user_nor_password(user: str) -> None:
    assert address_of(f"http://{user}host:5000/") == "http://host:5000"
