"""Reading an outbox: the sweep, its trials and their evaluations."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.records.events import EvaluationValues
from sweeps.records.outbox_file import opened_to_read
from sweeps.records.records import REMOVED, TRIAL, SweepRecord, TrialRecord, trial_record

Read = Callable[..., list[sqlite3.Row]]  # runs a query with values
UNSENT = """
    status != 'WAITING'
    AND (revision > sent OR key IN (SELECT key FROM evaluations WHERE NOT sent))
"""


def last_status(path: Path) -> str:
    """Return the status of the sweep that has its outbox at a path; empty if it cannot be read."""
    with contextlib.suppress(sqlite3.Error, TypeError), opened_to_read(path) as database:
        return str(database.execute("SELECT status FROM sweep").fetchone()[0])
    return ""


class OutboxReader:
    """Reads the sweep, its trials and their evaluations."""

    def __init__(self, read: Read) -> None:
        """Read by a function that returns the rows of a query."""
        self._read = read

    @property
    def sweep(self) -> SweepRecord:
        """The sweep itself."""
        (row,) = self._read("SELECT * FROM sweep")
        return SweepRecord(
            row["name"],
            json.loads(row["content"]),
            row["status"],
            row["revision"],
            row["sent"] >= row["revision"],
        )

    def trials(self) -> list[TrialRecord]:
        """Return the trials of the sweep, without those that were removed from it."""
        return self._with_role(TRIAL)

    def removed_trials(self) -> list[TrialRecord]:
        """Return the trials that were part of the sweep and are no longer."""
        return self._with_role(REMOVED)

    def _with_role(self, role: str) -> list[TrialRecord]:
        rows = self._read("SELECT * FROM trials WHERE role = ?", role)
        return [trial_record(row) for row in rows]

    def trial(self, key: str) -> TrialRecord | None:
        """Return a trial by its key, or None if there is none."""
        rows = self._read("SELECT * FROM trials WHERE key = ?", key)
        return trial_record(rows[0]) if rows else None

    def evaluations(self, key: str, unsent: bool = False) -> list[tuple[int, EvaluationValues]]:
        """Return the evaluations of a trial by step, with their times in ms since 1970."""
        which = "AND NOT sent" if unsent else ""
        rows = self._read(f"SELECT * FROM evaluations WHERE key = ? {which} ORDER BY step", key)
        return [(row["time_ms"], json.loads(row["content"])) for row in rows]

    def history(self, key: str) -> list[EvaluationValues]:
        """Return the evaluations of a trial by step."""
        return [evaluation for _, evaluation in self.evaluations(key)]

    def unsent(self) -> list[str]:
        """Return the keys of trials whose run in the tracking store is not up to date."""
        return [row["key"] for row in self._read(f"SELECT key FROM trials WHERE {UNSENT}")]

    @property
    def recomputed(self) -> int:
        """How many steps were trained again, of all trials."""
        return sum(record.recomputed for record in self.trials())

    def best(self) -> tuple[float, str] | None:
        """Return the lowest val_loss of any evaluation, and the name of its trial.

        None if there is no evaluation. Losses are in nats per character.
        """
        rows = self._read(
            "SELECT key, json_extract(evaluations.content, '$.val_loss') AS loss FROM evaluations"
            f" JOIN trials USING (key) WHERE role = '{TRIAL}' AND json_valid(evaluations.content)"
            " ORDER BY loss LIMIT 1"  # one that is not finite is no JSON
        )
        found = [(row["loss"], self.trial(row["key"])) for row in rows]
        return next(((loss, trial.content["name"]) for loss, trial in found if trial), None)

    def last_losses(self) -> dict[str, float]:
        """Return the val_loss of each finished trial's last evaluation, by key."""
        rows = self._read(
            "SELECT key, max(evaluations.step),"
            " json_extract(evaluations.content, '$.val_loss') AS loss"
            f" FROM evaluations JOIN trials USING (key) WHERE role = '{TRIAL}'"
            " AND status = 'FINISHED' AND json_valid(evaluations.content) GROUP BY key"
        )
        return {row["key"]: row["loss"] for row in rows}


@contextlib.contextmanager
def opened_reader(path: Path) -> Iterator[OutboxReader]:
    """Context manager: read the outbox at a path, which is not changed.

    Raises:
        sqlite3.Error: it cannot be read, or there is none.
    """
    with opened_to_read(path) as database:
        yield OutboxReader(lambda query, *values: database.execute(query, values).fetchall())


def read_trials(path: Path) -> list[TrialRecord]:
    """Return the trials of the sweep whose outbox is at a path.

    Raises:
        sqlite3.Error: it cannot be read, or there is none.
    """
    with opened_reader(path) as reader:
        return reader.trials()
