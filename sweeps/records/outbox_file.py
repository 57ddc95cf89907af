"""The sqlite file of an outbox: its tables, and how it is opened, whatever was there before."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sweeps.records.events import cause_of_reason
from trainables.errors import UserError
from trainables.files import keep_private, partial_of, remove_partials, set_aside

OUTBOX = "outbox.db"  # in the folder of a sweep
APPLICATION = 0x62677377  # marks the file as ours, in sqlite's application_id
VERSION = 2  # 2: evaluations call the losses train_loss, val_loss, best_val_loss, not *_nats
TIMEOUT_S = 20  # how long to wait for another process that writes
SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE sweep (
    name TEXT NOT NULL,
    content TEXT NOT NULL DEFAULT '{{}}',  -- JSON: what its experiment and its run show
    status TEXT NOT NULL DEFAULT 'RUNNING',
    revision INTEGER NOT NULL DEFAULT 1,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE trials (
    key TEXT PRIMARY KEY,
    content TEXT NOT NULL,  -- JSON: name, params and tags of its run
    role TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'WAITING',  -- or RUNNING, FINISHED, STOPPED, FAILED, KILLED
    reason TEXT NOT NULL DEFAULT '',  -- why it failed, or was stopped early
    cause TEXT NOT NULL DEFAULT '',  -- the same as sweeps.records.events.EndCause
    failures INTEGER NOT NULL DEFAULT 0,  -- how often it failed
    hardware TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0,
    restarts INTEGER NOT NULL DEFAULT 0,  -- how often a worker continued it
    recomputed INTEGER NOT NULL DEFAULT 0,  -- steps that were reported and trained again for it
    started_ms INTEGER,
    latest_ms INTEGER NOT NULL DEFAULT 0,
    run_id TEXT,  -- in the tracking store
    revision INTEGER NOT NULL DEFAULT 1,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE evaluations (
    key TEXT NOT NULL,
    step INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    content TEXT NOT NULL,  -- JSON: trainables.training.loop.Evaluation, host, usage
    sent INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, step)
) WITHOUT ROWID;
CREATE INDEX unsent_evaluations ON evaluations (key) WHERE NOT sent;
"""
DECIDING = """
CREATE TABLE IF NOT EXISTS claims (
    number INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    finished INTEGER NOT NULL,  -- trials, then
    looks INTEGER NOT NULL,  -- that were taken before, with other claims
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS looks (
    number INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    finished INTEGER NOT NULL,  -- trials
    trained_s REAL NOT NULL,  -- by all runs of the sweep
    content TEXT NOT NULL,  -- JSON: a list of sweeps.records.look_log.ClaimEvidence
    sent INTEGER NOT NULL DEFAULT 0
);
"""
Value = str | int | float | None  # of a column


class OutboxFile:
    """The open file, which several threads may share."""

    def __init__(self, path: Path, sweep: str) -> None:
        """Open or make the file of a sweep.

        A file that is damaged or of something else is set aside; ``lost`` says so in words.

        Raises:
            UserError: the file was made by a newer version.
            sqlite3.Error: it cannot be opened or made.
        """
        self.lost = ""
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _open(path, sweep)
        except _UnusableError as error:
            self.lost = f"{path} cannot be used ({error}); kept as {_set_aside(path).name}"
            self._database = _open(path, sweep)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def read(self, query: str, *values: Value) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def write(self, query: str, *values: Value) -> None:
        """Run one statement that changes the file."""
        with self._lock:
            self._database.execute(query, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Context manager: write all that its body does, or nothing if the body raises."""
        with self._lock, self._database as database:
            database.execute("BEGIN")
            yield database


@contextlib.contextmanager
def opened_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Context manager: open the outbox at a path, which another process may be writing.

    Raises:
        sqlite3.Error: it cannot be read, or there is none.
    """
    uri = f"file:{quote(str(path))}?mode=rw"  # of a journal that a driver left, readers write too
    connected = sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S)
    with contextlib.closing(connected) as database:
        database.row_factory = sqlite3.Row
        yield database


class _UnusableError(Exception):
    """The file is damaged, or not the outbox of this sweep."""


def _open(path: Path, sweep: str) -> sqlite3.Connection:
    if not path.exists():
        _create(path, sweep)
    if path.stat().st_size == 0:  # sqlite would take it for a new file
        raise _UnusableError("it is empty")
    keep_private(path)  # one of an earlier version was open to all
    database = sqlite3.connect(
        path, timeout=TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        database.row_factory = sqlite3.Row
        _check(database, path, sweep)
        _rename_losses(database)
        _add_causes(database)
        database.executescript(DECIDING)  # a file of an earlier version has no such tables
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.DatabaseError as error:
        database.close()
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _UnusableError(error) from None
        raise  # a full disk, say, which says nothing of the file
    except BaseException:
        database.close()
        raise
    return database


def _create(path: Path, sweep: str) -> None:
    """Make a whole file, then give it its name."""
    remove_partials(path.parent)
    partial = partial_of(path)
    keep_private(partial)
    with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as database:
        database.executescript(SCHEMA + DECIDING)
        database.execute("INSERT INTO sweep (name) VALUES (?)", (sweep,))
    partial.replace(path)


def _check(database: sqlite3.Connection, path: Path, sweep: str) -> None:
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise _UnusableError("it is not an outbox")
    if _version(database) > VERSION:
        raise UserError(f"{path} was made by a newer version; update bigram-sweeps")
    problem = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    if problem != "ok":
        raise _UnusableError(problem.splitlines()[-1])
    if [row["name"] for row in database.execute("SELECT name FROM sweep")] != [sweep]:
        raise _UnusableError("it is the outbox of another sweep")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _rename_losses(database: sqlite3.Connection) -> None:
    """Rename the losses in the evaluations of a file of version 1."""
    if _version(database) >= VERSION:
        return
    with database:
        database.execute("BEGIN IMMEDIATE")
        for name in ("train", "val", "best_val"):
            # As text: a loss that is not finite is no JSON. Quotes inside of values are escaped.
            database.execute(
                "UPDATE evaluations SET content = replace(content, ?, ?)",
                (f'"{name}_nats":', f'"{name}_loss":'),
            )
        database.execute(f"PRAGMA user_version = {VERSION}")


def _add_causes(database: sqlite3.Connection) -> None:
    """Give each trial in a file of an earlier version the cause that its reason tells."""
    if _has_causes(database):
        return
    database.create_function("cause_of_reason", 1, lambda reason: cause_of_reason(reason) or "")
    with database:
        database.execute("BEGIN IMMEDIATE")
        if _has_causes(database):
            return  # another process added them meanwhile
        database.execute("ALTER TABLE trials ADD COLUMN cause TEXT NOT NULL DEFAULT ''")
        database.execute("UPDATE trials SET cause = cause_of_reason(reason)")


def _has_causes(database: sqlite3.Connection) -> bool:
    columns = database.execute("PRAGMA table_info(trials)")
    return "cause" in {column["name"] for column in columns}


def _set_aside(path: Path) -> Path:
    """Set the file aside, with the journal that belongs to it."""
    target = set_aside(path)
    for suffix in ("-wal", "-shm"):
        journal = path.with_name(path.name + suffix)
        if journal.exists():
            journal.rename(target.with_name(target.name + suffix))
    return target
