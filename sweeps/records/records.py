"""A sweep and its trials as the outbox has them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.records.events import EndCause, cause_of_reason

FURTHER = {"added_by": "decide"}  # tags of a trial with a further seed, for open claims
TRIAL, REMOVED = "trial", "removed"  # roles of a run; removed: no longer part of the sweep
# What the runs in MLflow are made from, as JSON: of a trial its name, params and tags.
Content = Mapping[str, Any]  # Any: `sweeps.tracking` writes and reads it, the outbox only keeps it


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the outbox has it; ``content`` is what `Outbox.describe` was given."""

    key: str
    content: Content
    role: str
    status: str  # WAITING, RUNNING, FINISHED, STOPPED, FAILED or KILLED
    reason: str  # why it failed, or was stopped early
    failures: int  # how often it failed
    hardware: str
    step: int
    restarts: int  # how often a worker continued it
    recomputed: int  # steps that were trained again for that
    started_ms: int | None  # since 1970, as all times
    latest_ms: int
    run_id: str | None  # in the tracking store
    revision: int
    cause: EndCause | None = None

    @property
    def is_done(self) -> bool:
        """True if it was trained to its last step, or stopped before."""
        return self.status in ("FINISHED", "STOPPED")

    def is_left(self, max_failures: int) -> bool:
        """Return whether it is to be trained: not finished, nor failed too often."""
        return self.status != "FINISHED" and self.failures < max_failures

    @property
    def is_decided(self) -> bool:
        """True if it is done, or has failed."""
        return self.is_done or self.status == "FAILED"

    @property
    def is_confirming(self) -> bool:
        """True if it trains the best configuration of a study once more."""
        return bool(self.content["tags"].get("stage") == "confirm")

    @property
    def is_further(self) -> bool:
        """True if it has a further seed, which was added because some claims were open."""
        return bool(self.content["tags"].items() >= FURTHER.items())

    @property
    def is_suggested(self) -> bool:
        """True if a study suggested it. Its failure is a result, and no failure of the sweep."""
        return bool(self.content["tags"].get("stage") == "search")


@dataclass(frozen=True)
class SweepRecord:
    """The sweep itself as the outbox has it."""

    name: str
    content: Content
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    revision: int
    is_sent: bool


def trial_record(row: sqlite3.Row) -> TrialRecord:
    """Return the record of a row of trials. One of an earlier version has no cause."""
    columns = dict(zip(row.keys(), row, strict=True))
    cause = columns.get("cause", cause_of_reason(row["reason"]))
    columns |= {"content": json.loads(row["content"]), "cause": EndCause(cause) if cause else None}
    return TrialRecord(**{name: columns[name] for name in TrialRecord.__dataclass_fields__})
