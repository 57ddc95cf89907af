"""MLflow stores in a sqlite file: their URIs, and the state directory around them.

A state directory has the store at `mlflow.db`, the artifacts of a sweep in `artifacts/SWEEP` and
the lock of its driver at `sweeps/SWEEP/lock.json`.
"""

from __future__ import annotations

import fcntl
import logging
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from analysis.errors import AnalysisError

STORE = "mlflow.db"
BUSY_S = 20.0  # as long as MLflow waits for another process that writes
SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)", re.DOTALL)

logger = logging.getLogger(__name__)


def store_uri(file: Path) -> str:
    """Return the URI of a store in a file, whatever characters its path has.

    SQLAlchemy unquotes the path, and ends it at a question mark. Of a `sqlite:///` URI MLflow makes
    the folder too, in its quoted form; it does not where the driver is named.

    Raises:
        AnalysisError: the path is not text.
    """
    path = str(file)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise AnalysisError(
            f"MLflow cannot keep a store at {path!r}, whose name is not UTF-8; choose another"
            " directory with --state"
        ) from None
    quoted = path.replace("%", "%25").replace("?", "%3F")
    return f"{'sqlite' if quoted == path else 'sqlite+pysqlite'}:///{quoted}"


def store_file(uri: str) -> Path | None:
    """Return the file of a store, as SQLAlchemy reads its URI; None if it is not in a file."""
    found = SQLITE.match(uri)
    path = unquote(found["path"]) if found else ""
    return None if path in ("", ":memory:") else Path(path).absolute()


def plain_uri(uri: str) -> str:
    """Return the URI as `store_uri` writes it, if it names a file and nothing else."""
    file = store_file(uri)
    return store_uri(file) if file and "?" not in uri else uri


def artifacts_beside(store: Path, sweep: str) -> Path:
    """Return the folder of the artifacts of a sweep, if the store is a file."""
    return store.parent / "artifacts" / sweep


def is_driven(store: Path, sweep: str) -> bool | None:
    """Return whether a process holds the lock of a sweep, or None if there is no lock."""
    try:
        with (store.parent / "sweeps" / sweep / "lock.json").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def follow_move(store: Path, driven: str | None = None) -> None:
    """Correct the paths of artifacts in the store of a state directory that was moved or copied.

    MLflow stores absolute paths. A sweep that another process runs is left as it is: that process
    may see the directory at another path, as a container does.

    Args:
        store: the file.
        driven: the sweep that this process runs.
    """
    uri = f"file:{quote(str(store))}?mode=rw"
    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        ) as database:
            if _moved(database, store):
                _correct(database, store, driven)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
            logger.warning(
                "the state directory was moved to %s, and its store may not be written: artifacts"
                " are looked for at the old place",
                store.parent,
            )
    except sqlite3.DatabaseError:
        pass  # the file is damaged, or no store yet: the next one to open it reports that


def _moved(database: sqlite3.Connection, store: Path) -> list[tuple[int, str, str]]:
    """Return the experiments whose artifacts are beside another store: id, name, location."""
    rows = database.execute("SELECT experiment_id, name, artifact_location FROM experiments")
    return [row for row in rows if is_elsewhere(row[2], artifacts_beside(store, row[1]))]


def is_elsewhere(location: str | None, folder: Path) -> bool:
    """Return whether a location is this folder as another state directory has it."""
    there = local_folder(location)
    if there is None or there.parts[-2:] != folder.parts[-2:] or there == folder:
        return False
    try:
        return not there.samefile(folder)
    except OSError:
        return there.resolve() != folder.resolve()


def local_folder(location: str | None) -> Path | None:
    """Return the folder of an artifact location; None if it is not on a disk, such as s3://bucket/folder."""
    path = location or ""
    if path.startswith("file:"):
        path = unquote(urlsplit(path).path)
    return Path(path) if path.startswith("/") else None


def _correct(database: sqlite3.Connection, store: Path, driven: str | None) -> None:
    """Write the new locations of artifacts, in one transaction.

    A run whose artifacts are only at the old place keeps that location.
    """
    places, count = set(), 0
    database.execute("BEGIN IMMEDIATE")
    for experiment_id, name, location in _moved(database, store):
        if name != driven and is_driven(store, name):
            continue
        old, new = local_folder(location), artifacts_beside(store, name)
        assert old
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (new.as_uri(), experiment_id),
        )
        runs = database.execute(
            "SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?", (experiment_id,)
        ).fetchall()
        for run_id, uri in runs:
            here = local_folder(uri)
            if here is None or not here.is_relative_to(old):
                continue
            moved = new / here.relative_to(old)
            if moved.exists() or not here.exists():
                database.execute(
                    "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (moved.as_uri(), run_id)
                )
                count += 1
        places.add(str(old.parents[1]))
    database.execute("COMMIT")
    if places:
        logger.warning(
            "the state directory was at %s and is at %s now, where %d runs have their artifacts",
            ", ".join(sorted(places)),
            store.parent,
            count,
        )
