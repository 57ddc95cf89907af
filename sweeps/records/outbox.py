"""What happens to a sweep, kept on disk: a later `run` continues from it, and MLflow is sent it.

One sqlite file for each sweep. Events are written into it as they happen;
`sweeps.tracking.delivery` sends what the tracking store lacks. Each change of a row raises its
revision above the one that was sent last.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from sweeps.records.events import EvaluationValues, TrialEvent, cause_of_reason
from sweeps.records.look_log import LookLog
from sweeps.records.outbox_file import OutboxFile
from sweeps.records.outbox_reader import OutboxReader
from sweeps.records.records import REMOVED, TRIAL, Content, TrialRecord

KILL_RUNNING = (
    "UPDATE trials SET status = 'KILLED', revision = revision + 1 WHERE status = 'RUNNING'"
)


class Outbox(OutboxReader):
    """The outbox of the driver, which alone writes it. Threads may share it."""

    def __init__(self, path: Path, sweep: str) -> None:
        """Open or make the outbox of a sweep.

        A file that is damaged or of something else is set aside, and ``lost`` says so: its content
        comes back from the trials' checkpoints and from the tracking store.

        Raises:
            UserError: the file was made by a newer version.
            sqlite3.Error: it cannot be opened or made.
        """
        self._file = OutboxFile(path, sweep)
        super().__init__(self._file.read)
        self.path = path
        self.looks = LookLog(self._file)
        self.lost = self._file.lost

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # What the sweep is to be.

    def describe(self, content: Content, trials: Mapping[str, Content]) -> int:
        """Make the sweep what its file describes. Nothing may run meanwhile.

        Args:
            content: of the sweep.
            trials: content by key. Other trials are removed from the sweep; trials that ran when
                an earlier driver died become KILLED.

        Returns:
            How many trials were removed that had a run.
        """
        with self._file.transaction() as database:
            database.execute(KILL_RUNNING)
            before = {
                row["key"]: row["status"]
                for row in database.execute(
                    "SELECT key, status FROM trials WHERE role = ?", (TRIAL,)
                )
            }
            _put(database, trials)
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

    def add(self, trials: Mapping[str, Content]) -> None:
        """Add trials to the sweep while it runs, or change what describes them; by key."""
        with self._file.transaction() as database:
            _put(database, trials)

    def kill_running(self) -> None:
        """Mark running trials as killed: no worker trains them any more."""
        self._file.write(KILL_RUNNING)

    def end(self, status: str) -> None:
        """Set the status with which the sweep ended."""
        self._file.write("UPDATE sweep SET status = ?, revision = revision + 1", status)

    def reset_failures(self) -> None:
        """Reset how often trials have failed, so that they are tried again."""
        self._file.write("UPDATE trials SET failures = 0")

    # What happens.

    def record(self, event: TrialEvent) -> None:
        """Write an event; an evaluation that is known already changes nothing.

        The times of a trial never go back, whatever the clock does.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        end = {"reason": event.reason, "cause": event.cause or ""}
        with self._file.transaction() as database:
            database.execute(
                "UPDATE trials SET latest_ms = max(latest_ms, ?) WHERE key = ?",
                (event.time_ms, event.key),
            )
            match event.kind:
                case "started":
                    _set(database, event.key, "status = 'RUNNING', reason = '', cause = '',"
                         " started_ms = coalesce(started_ms, latest_ms)")  # fmt: skip
                case "progressed":
                    _progress(database, event)
                case "finished":
                    _set(database, event.key, "status = 'FINISHED', reason = '', cause = ''")
                case "stopped":
                    _set(database, event.key, "status = 'STOPPED', reason = :reason,"
                         " cause = :cause", **end)  # fmt: skip
                case "failed":
                    _set(database, event.key, "status = 'FAILED', failures = failures + 1,"
                         " reason = :reason, cause = :cause", **end)  # fmt: skip

    # What the tracking store has.

    def sent(self, record: TrialRecord, run_id: str, steps: Iterable[int] = ()) -> None:
        """Mark a trial's record, and its evaluations at these steps, as sent to the store."""
        with self._file.transaction() as database:
            database.execute(
                "UPDATE trials SET sent = max(sent, ?), run_id = ? WHERE key = ?",
                (record.revision, run_id, record.key),
            )
            database.executemany(
                "UPDATE evaluations SET sent = 1 WHERE key = ? AND step = ?",
                [(record.key, step) for step in steps],
            )

    def sweep_sent(self, revision: int) -> None:
        """Mark the record of the sweep as sent to the store, up to this revision."""
        self._file.write("UPDATE sweep SET sent = max(sent, ?)", revision)

    def resend(self, key: str) -> None:
        """Mark everything of a trial as unsent, because the store has lost its run."""
        with self._file.transaction() as database:
            database.execute("UPDATE trials SET run_id = NULL, sent = 0 WHERE key = ?", (key,))
            database.execute("UPDATE evaluations SET sent = 0 WHERE key = ?", (key,))

    def adopt(
        self,
        key: str,
        run_id: str,
        status: str,
        reason: str,
        evaluations: Iterable[tuple[int, EvaluationValues]],
        is_current: bool = True,
    ) -> None:
        """Take over a run that the store has and this file does not know.

        Args:
            key: of a trial; while it waits, it takes the run's status.
            run_id: of its run.
            status: of its run, or STOPPED. The run was interrupted if it is none of these, FINISHED
                and FAILED.
            reason: why it failed, or was stopped early.
            evaluations: those that the run has, with their times in ms.
            is_current: whether the run has ended, with name, params and role of the trial.
        """
        ended = status in ("FINISHED", "STOPPED", "FAILED")
        with self._file.transaction() as database:
            _put_evaluations(database, key, run_id, list(evaluations))
            database.execute(
                "UPDATE trials SET status = ?, reason = ?, cause = ?, failures = ?,"
                " revision = revision + ? WHERE key = ? AND status = 'WAITING'",
                (status if ended else "KILLED", reason, cause_of_reason(reason) or "",
                 status == "FAILED", not ended, key),
            )  # fmt: skip
            if ended and is_current:
                database.execute(
                    "UPDATE trials SET sent = revision WHERE key = ? AND status = ?", (key, status)
                )


def _put(database: sqlite3.Connection, trials: Mapping[str, Content]) -> None:
    """Insert trials, or change what describes them."""
    database.executemany(
        "INSERT INTO trials (key, content, role) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET content = excluded.content, role = excluded.role,"
        " revision = revision + 1"
        " WHERE (content, role) != (excluded.content, excluded.role)",
        [(key, json.dumps(content), TRIAL) for key, content in trials.items()],
    )


def _set(database: sqlite3.Connection, key: str, assignments: str, **values: str) -> None:
    """Change what the run of a trial shows."""
    database.execute(
        f"UPDATE trials SET {assignments}, revision = revision + 1 WHERE key = :key",
        {"key": key, **values},
    )


def _progress(database: sqlite3.Connection, event: TrialEvent) -> None:
    """Write how far a trial is, and its new evaluations."""
    known = database.execute(
        "SELECT step, hardware FROM trials WHERE key = ?", (event.key,)
    ).fetchone()
    if event.resumed and known["step"]:
        database.execute(
            "UPDATE trials SET restarts = restarts + 1, recomputed = recomputed + ? WHERE key = ?",
            (max(0, known["step"] - event.step), event.key),
        )
    database.execute("UPDATE trials SET step = ? WHERE key = ?", (event.step, event.key))
    if event.hardware != known["hardware"]:
        _set(database, event.key, "hardware = :hardware", hardware=event.hardware)
    database.executemany(
        "INSERT OR IGNORE INTO evaluations (key, step, time_ms, content)"
        " SELECT key, :step, latest_ms, :content FROM trials WHERE key = :key",
        [
            {"key": event.key, "step": evaluation["step"], "content": json.dumps(evaluation)}
            for evaluation in event.evaluations
        ],
    )


def _put_evaluations(
    database: sqlite3.Connection,
    key: str,
    run_id: str,
    evaluations: list[tuple[int, EvaluationValues]],
) -> None:
    """Give a trial a run of the store, and the evaluations that this run has."""
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
