"""What a sweep came to, kept on disk: the state that `run` goes on from, and what MLflow has yet to
be told.

One sqlite file for each sweep. Events are written into it as they happen;
`sweeps.tracking.delivery` sends what the tracking store does not have. A row that was changed has a
higher revision than was sent.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sweeps.records.events import EndCause, TrialEvent, cause_in_words
from trainables.errors import UserError
from trainables.files import keep_private, partial_of, remove_partials, set_aside

OUTBOX = "outbox.db"  # in the folder of a sweep
APPLICATION = 0x62677377  # marks the file as ours, in sqlite's application_id
VERSION = 2  # 2: evaluations call the losses train_loss, val_loss, best_val_loss, not *_nats
TRIAL, REMOVED = "trial", "removed"  # roles of a run; removed: no longer part of the sweep
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
    cause TEXT NOT NULL DEFAULT '',  -- sweeps.records.events.EndCause
    failures INTEGER NOT NULL DEFAULT 0,  -- how often it failed
    hardware TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0,
    restarts INTEGER NOT NULL DEFAULT 0,  -- how often it was taken up again
    recomputed INTEGER NOT NULL DEFAULT 0,  -- steps that were heard of and taken again for it
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
UNSENT = """
    status != 'WAITING'
    AND (revision > sent OR key IN (SELECT key FROM evaluations WHERE NOT sent))
"""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the outbox has it; ``content`` is what `Outbox.describe` was given."""

    key: str
    content: Mapping[str, Any]
    role: str
    status: str
    reason: str
    failures: int
    hardware: str
    step: int
    restarts: int
    recomputed: int
    started_ms: int | None
    latest_ms: int
    run_id: str | None
    revision: int
    cause: EndCause | None = None

    @property
    def is_done(self) -> bool:
        """Whether it came to its end, or was stopped before it."""
        return self.status in ("FINISHED", "STOPPED")

    def is_left(self, max_failures: int) -> bool:
        """Whether it is to be trained: not done, and not given up."""
        return self.status != "FINISHED" and self.failures < max_failures

    @property
    def is_decided(self) -> bool:
        """Whether it is done, or has failed."""
        return self.is_done or self.status == "FAILED"

    @property
    def is_confirming(self) -> bool:
        """Whether it trains the winner of a study once more."""
        return bool(self.content["tags"].get("stage") == "confirm")

    @property
    def is_suggested(self) -> bool:
        """Whether a search suggested it: it takes a failure for an answer."""
        return bool(self.content["tags"].get("stage") == "search")


@dataclass(frozen=True)
class SweepRecord:
    """The sweep itself as the outbox has it."""

    name: str
    content: Mapping[str, Any]
    status: str
    revision: int
    is_sent: bool


class Outbox:
    """The open file; may be used from several threads."""

    def __init__(self, path: Path, sweep: str) -> None:
        """Open or make the outbox of a sweep.

        A file that is damaged or of something else is set aside, and ``lost`` says so: its content
        comes back from the trials' checkpoints and from the tracking store.

        Raises:
            UserError: the file was made by a newer version.
            sqlite3.Error: it cannot be opened or made.
        """
        self.path = path
        self.lost = ""
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _open(path, sweep)
        except _UnusableError as error:
            self.lost = f"{path} cannot be used ({error}); kept as {_set_aside(path).name}"
            self._database = _open(path, sweep)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # What the sweep is to be.

    def describe(self, content: Mapping[str, Any], trials: Mapping[str, Mapping[str, Any]]) -> int:
        """Take over what a sweep file describes; nothing runs at this time.

        Args:
            content: of the sweep.
            trials: content by key; the other trials are removed from the sweep, and what was
                running when an earlier driver died is not.

        Returns:
            How many trials were removed that had a run.
        """
        with self._lock, self._database as database:
            database.execute("BEGIN")
            self._stop_running()
            before = {
                row["key"]: row["status"]
                for row in database.execute(
                    "SELECT key, status FROM trials WHERE role = ?", (TRIAL,)
                )
            }
            self._put(trials)
            removed = before.keys() - trials.keys()
            database.executemany(
                "UPDATE trials SET role = ?, revision = revision + 1 WHERE key = ?",
                [(REMOVED, key) for key in removed],
            )
            database.execute(
                "UPDATE sweep SET content = ?, status = 'RUNNING', revision = revision + 1",
                (json.dumps(content),),
            )
        return sum(before[key] != "WAITING" for key in removed)

    def add(self, trials: Mapping[str, Mapping[str, Any]]) -> None:
        """Make trials part of the sweep while it runs, or change what they are; by key."""
        with self._lock, self._database as database:
            database.execute("BEGIN")
            self._put(trials)

    def _put(self, trials: Mapping[str, Mapping[str, Any]]) -> None:
        self._database.executemany(
            "INSERT INTO trials (key, content, role) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET content = excluded.content, role = excluded.role,"
            " revision = revision + 1"
            " WHERE (content, role) != (excluded.content, excluded.role)",
            [(key, json.dumps(content), TRIAL) for key, content in trials.items()],
        )

    def settle(self) -> None:
        """Nothing runs any more: what was running is stopped."""
        with self._lock:
            self._stop_running()

    def end(self, status: str) -> None:
        """Say how the sweep ended."""
        self._write("UPDATE sweep SET status = ?, revision = revision + 1", status)

    def forgive(self) -> None:
        """Forget how often trials failed."""
        self._write("UPDATE trials SET failures = 0")

    # What happens.

    def record(self, event: TrialEvent) -> None:
        """Take an event; an evaluation that is known already changes nothing.

        Times of a trial never go back, whatever the clock does.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        with self._lock, self._database as database:
            database.execute("BEGIN")
            database.execute(
                "UPDATE trials SET latest_ms = max(latest_ms, ?) WHERE key = ?",
                (event.time_ms, event.key),
            )
            match event.kind:
                case "started":
                    self._set(event.key, "status = 'RUNNING', reason = '', cause = '',"
                              " started_ms = coalesce(started_ms, latest_ms)")  # fmt: skip
                case "progressed":
                    self._progress(event)
                case "finished":
                    self._set(event.key, "status = 'FINISHED', reason = '', cause = ''")
                case "stopped":
                    self._set(event.key, "status = 'STOPPED', reason = :reason, cause = :cause",
                              reason=event.reason, cause=event.cause or "")  # fmt: skip
                case "failed":
                    self._set(event.key, "status = 'FAILED', failures = failures + 1,"
                              " reason = :reason, cause = :cause",
                              reason=event.reason, cause=event.cause or "")  # fmt: skip

    def _stop_running(self) -> None:
        self._database.execute(
            "UPDATE trials SET status = 'KILLED', revision = revision + 1 WHERE status = 'RUNNING'"
        )

    def _progress(self, event: TrialEvent) -> None:
        database = self._database
        known = database.execute(
            "SELECT step, hardware FROM trials WHERE key = ?", (event.key,)
        ).fetchone()
        if event.resumed and known["step"]:
            database.execute(
                "UPDATE trials SET restarts = restarts + 1, recomputed = recomputed + ?"
                " WHERE key = ?",
                (max(0, known["step"] - event.step), event.key),
            )
        database.execute("UPDATE trials SET step = ? WHERE key = ?", (event.step, event.key))
        if event.hardware != known["hardware"]:
            self._set(event.key, "hardware = :hardware", hardware=event.hardware)
        database.executemany(
            "INSERT OR IGNORE INTO evaluations (key, step, time_ms, content)"
            " SELECT key, :step, latest_ms, :content FROM trials WHERE key = :key",
            [
                {"key": event.key, "step": one["step"], "content": json.dumps(one)}
                for one in event.evaluations
            ],
        )

    def _set(self, key: str, assignments: str, **values: str) -> None:
        self._database.execute(
            f"UPDATE trials SET {assignments}, revision = revision + 1 WHERE key = :key",
            {"key": key, **values},
        )

    # What is known.

    @property
    def sweep(self) -> SweepRecord:
        (row,) = self._read("SELECT * FROM sweep")
        return SweepRecord(
            row["name"],
            json.loads(row["content"]),
            row["status"],
            row["revision"],
            row["sent"] >= row["revision"],
        )

    def trials(self) -> list[TrialRecord]:
        """The trials of the sweep, without those that were removed from it."""
        return [_record(row) for row in self._read(f"SELECT * FROM trials WHERE role = '{TRIAL}'")]

    def removed_trials(self) -> list[TrialRecord]:
        """Trials that were part of the sweep."""
        query = f"SELECT * FROM trials WHERE role = '{REMOVED}'"
        return [_record(row) for row in self._read(query)]

    def trial(self, key: str) -> TrialRecord | None:
        rows = self._read("SELECT * FROM trials WHERE key = ?", key)
        return _record(rows[0]) if rows else None

    def evaluations(self, key: str, unsent: bool = False) -> list[tuple[int, dict[str, Any]]]:
        """The evaluations of a trial by step, with their times in ms since 1970."""
        which = "AND NOT sent" if unsent else ""
        rows = self._read(f"SELECT * FROM evaluations WHERE key = ? {which} ORDER BY step", key)
        return [(row["time_ms"], json.loads(row["content"])) for row in rows]

    @property
    def recomputed(self) -> int:
        """Steps that were taken again, of all trials."""
        return sum(record.recomputed for record in self.trials())

    def best(self) -> tuple[float, str] | None:
        """The lowest val_loss of an evaluation so far, in nats, and the name of its trial."""
        found = self._read(
            "SELECT key, json_extract(evaluations.content, '$.val_loss') AS nats FROM evaluations"
            f" JOIN trials USING (key) WHERE role = '{TRIAL}' AND json_valid(evaluations.content)"
            " ORDER BY nats LIMIT 1"  # one that is not finite is no JSON
        )
        return next(
            ((row["nats"], record.content["name"])
             for row in found if (record := self.trial(row["key"]))),
            None,
        )  # fmt: skip

    def last_losses(self) -> dict[str, float]:
        """The val_loss of each finished trial's last evaluation, in nats, by key."""
        rows = self._read(
            "SELECT key, max(evaluations.step),"
            " json_extract(evaluations.content, '$.val_loss') AS nats"
            f" FROM evaluations JOIN trials USING (key) WHERE role = '{TRIAL}'"
            " AND status = 'FINISHED' AND json_valid(evaluations.content) GROUP BY key"
        )
        return {row["key"]: row["nats"] for row in rows}

    # What the tracking store has.

    def unsent(self) -> list[str]:
        """The keys of trials whose run in the tracking store is not up to date."""
        return [row["key"] for row in self._read(f"SELECT key FROM trials WHERE {UNSENT}")]

    def sent(self, record: TrialRecord, run_id: str, steps: Iterable[int] = ()) -> None:
        """The run of a trial is as its record, and has these steps."""
        with self._lock, self._database as database:
            database.execute("BEGIN")
            database.execute(
                "UPDATE trials SET sent = max(sent, ?), run_id = ? WHERE key = ?",
                (record.revision, run_id, record.key),
            )
            database.executemany(
                "UPDATE evaluations SET sent = 1 WHERE key = ? AND step = ?",
                [(record.key, step) for step in steps],
            )

    def sweep_sent(self, revision: int) -> None:
        """The sweep's own run is as of this revision."""
        self._write("UPDATE sweep SET sent = max(sent, ?)", revision)

    def adopt(
        self,
        key: str,
        run_id: str,
        status: str,
        reason: str,
        evaluations: Iterable[tuple[int, Mapping[str, Any]]],
        is_current: bool = True,
    ) -> None:
        """Take over a run that the store has and this file did not know.

        Args:
            key: of a trial; while it waits, it takes the run's status.
            run_id: of its run.
            status: of its run, or STOPPED; another one than these, FINISHED and FAILED was
                interrupted.
            reason: why it failed, or was stopped early.
            evaluations: those that the run has, with their times in ms.
            is_current: whether name, params and role of the run are those of the trial.
        """
        with self._lock, self._database as database:
            database.execute("BEGIN")
            evaluations = list(evaluations)
            latest_ms = max((time_ms for time_ms, _ in evaluations), default=0)
            database.execute(
                "UPDATE trials SET run_id = ?, latest_ms = max(latest_ms, ?) WHERE key = ?",
                (run_id, latest_ms, key),
            )
            database.executemany(
                "INSERT INTO evaluations (key, step, time_ms, content, sent)"
                " VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET sent = 1",
                [(key, each["step"], time_ms, json.dumps(each)) for time_ms, each in evaluations],
            )
            ended = status in ("FINISHED", "STOPPED", "FAILED")
            database.execute(
                "UPDATE trials SET status = ?, reason = ?, cause = ?, failures = ?,"
                " revision = revision + ? WHERE key = ? AND status = 'WAITING'",
                (
                    status if ended else "KILLED",
                    reason,
                    cause_in_words(reason) or "",
                    status == "FAILED",
                    not ended,
                    key,
                ),
            )
            if ended and is_current:
                database.execute(
                    "UPDATE trials SET sent = revision WHERE key = ? AND status = ?", (key, status)
                )

    def resend(self, key: str) -> None:
        """The store does not have the run of a trial: send all of it again."""
        with self._lock, self._database as database:
            database.execute("BEGIN")
            database.execute("UPDATE trials SET run_id = NULL, sent = 0 WHERE key = ?", (key,))
            database.execute("UPDATE evaluations SET sent = 0 WHERE key = ?", (key,))

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _write(self, query: str, *values: Any) -> None:
        with self._lock:
            self._database.execute(query, values)


@contextlib.contextmanager
def opened_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Context manager: open the outbox at a path, which another process may be writing.

    Raises:
        sqlite3.Error: it cannot be read, or there is none.
    """
    uri = f"file:{quote(str(path))}?mode=rw"  # of a journal that a driver left, readers write too
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=20)) as database:
        database.row_factory = sqlite3.Row
        yield database


def read_trials(path: Path) -> list[TrialRecord]:
    """The trials of the sweep whose outbox is at a path, which is not changed.

    Raises:
        sqlite3.Error: it cannot be read, or there is none.
    """
    with opened_to_read(path) as database:
        rows = database.execute("SELECT * FROM trials WHERE role = ?", (TRIAL,)).fetchall()
    return [_record(row) for row in rows]


class _UnusableError(Exception):
    """The file is damaged, or not the outbox of this sweep."""


def _open(path: Path, sweep: str) -> sqlite3.Connection:
    if not path.exists():
        _create(path, sweep)
    if path.stat().st_size == 0:  # sqlite would take it for a new file
        raise _UnusableError("it is empty")
    keep_private(path)  # one of an earlier version was open to all
    database = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)
    try:
        database.row_factory = sqlite3.Row
        _check(database, path, sweep)
        _upgrade(database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        _add_causes(database)
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
        database.executescript(SCHEMA)
        database.execute("INSERT INTO sweep (name) VALUES (?)", (sweep,))
    partial.replace(path)


def _check(database: sqlite3.Connection, path: Path, sweep: str) -> None:
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise _UnusableError("it is not an outbox")
    if database.execute("PRAGMA user_version").fetchone()[0] > VERSION:
        raise UserError(f"{path} was made by a newer version; update bigram-sweeps")
    problem = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    if problem != "ok":
        raise _UnusableError(problem.splitlines()[-1])
    if [row["name"] for row in database.execute("SELECT name FROM sweep")] != [sweep]:
        raise _UnusableError("it is the outbox of another sweep")


def _add_causes(database: sqlite3.Connection) -> None:
    """Give the trials of an earlier version a cause, read from their reasons."""
    if "cause" in {column["name"] for column in database.execute("PRAGMA table_info(trials)")}:
        return
    database.create_function("cause_in_words", 1, lambda reason: cause_in_words(reason) or "")
    with database:
        database.execute("BEGIN")
        database.execute("ALTER TABLE trials ADD COLUMN cause TEXT NOT NULL DEFAULT ''")
        database.execute("UPDATE trials SET cause = cause_in_words(reason)")


def _upgrade(database: sqlite3.Connection) -> None:
    """Convert a file of version 1: rename the losses in the JSON of its evaluations."""
    if database.execute("PRAGMA user_version").fetchone()[0] >= VERSION:
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


def _record(row: sqlite3.Row) -> TrialRecord:
    """Return the record of a row, which an earlier version may have written."""
    columns = dict(zip(row.keys(), row, strict=True))
    cause = columns.get("cause", cause_in_words(row["reason"]))
    columns |= {"content": json.loads(row["content"]), "cause": EndCause(cause) if cause else None}
    return TrialRecord(**{name: columns[name] for name in TrialRecord.__dataclass_fields__})


def _set_aside(path: Path) -> Path:
    """Set the file aside, with the journal that belongs to it."""
    target = set_aside(path)
    for suffix in ("-wal", "-shm"):
        journal = path.with_name(path.name + suffix)
        if journal.exists():
            journal.rename(target.with_name(target.name + suffix))
    return target
