"""What the outbox keeps of the claims that a sweep decides, and of the evidence at each look."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.records.outbox_file import OutboxFile


@dataclass(frozen=True)
class KnownClaims:
    """A text of claims that the sweep was run with."""

    sha256: str  # of the bytes of the file
    text: str
    since_ms: int  # when a run first had it
    finished: int  # trials that were finished then
    looks: int  # that were taken before, at the evidence for other claims


@dataclass(frozen=True)
class ClaimEvidence:
    """The evidence on a claim at a look."""

    claim: str
    verdict: str  # SUPPORTED, NOT SUPPORTED or UNDERPOWERED
    evidence_for: float  # log10 of the e-value for the claim
    evidence_against: float  # log10 of the e-value against it


@dataclass(frozen=True)
class Look:
    """A look at the evidence, at which it had changed."""

    time_ms: int
    finished: int  # trials of the sweep
    trained_s: float  # the time that the sweep has been trained, over all runs
    claims: tuple[ClaimEvidence, ...]


class LookLog:
    """The claims of a sweep and its looks, in the file of its outbox. Threads may share it."""

    def __init__(self, file: OutboxFile) -> None:
        """Use an open file."""
        self._file = file

    def keep_claims(self, text: str, sha256: str, finished: int) -> bool:
        """Keep the claims of a run, with the time if they are new.

        Args:
            text: of the claims.
            sha256: of its bytes.
            finished: trials of the sweep that are finished now.

        Returns:
            Whether the sweep had other claims before.
        """
        with self._file.transaction() as database:
            known = [row["sha256"] for row in database.execute("SELECT sha256 FROM claims")]
            if sha256 not in known:
                (looks,) = database.execute("SELECT count(*) FROM looks").fetchone()
                database.execute(
                    "INSERT INTO claims (sha256, text, since_ms, finished, looks)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (sha256, text, time.time_ns() // 1_000_000, finished, looks),
                )
        return sha256 not in known and bool(known)

    def claims(self) -> list[KnownClaims]:
        """Return all claims that the sweep was run with, the first ones first."""
        rows = self._file.read(
            "SELECT sha256, text, since_ms, finished, looks FROM claims ORDER BY number"
        )
        return [KnownClaims(**dict(row)) for row in rows]

    def add(self, look: Look) -> None:
        """Add a look.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        self._file.write(
            "INSERT INTO looks (time_ms, finished, trained_s, content) VALUES (?, ?, ?, ?)",
            look.time_ms,
            look.finished,
            look.trained_s,
            json.dumps([asdict(claim) for claim in look.claims]),
        )

    def looks(self, after: int = 0) -> dict[int, Look]:
        """Return the looks by their numbers, those after a number."""
        rows = self._file.read("SELECT * FROM looks WHERE number > ? ORDER BY number", after)
        return {row["number"]: _look(dict(row), json.loads(row["content"])) for row in rows}

    def unsent(self) -> dict[int, Look]:
        """Return the looks that the tracking store lacks, by their numbers."""
        (row,) = self._file.read("SELECT coalesce(max(number), 0) AS last FROM looks WHERE sent")
        return self.looks(after=row["last"])

    @property
    def is_sent(self) -> bool:
        """True if the tracking store has all claims and looks."""
        (row,) = self._file.read(
            "SELECT (SELECT count(*) FROM claims WHERE NOT sent)"
            " + (SELECT count(*) FROM looks WHERE NOT sent) AS unsent"
        )
        return not row["unsent"]

    def sent(self, claims: Sequence[KnownClaims], last_look: int) -> None:
        """Mark claims, and the looks up to a number, as sent to the tracking store."""
        with self._file.transaction() as database:
            database.executemany(
                "UPDATE claims SET sent = 1 WHERE sha256 = ?", [(each.sha256,) for each in claims]
            )
            database.execute("UPDATE looks SET sent = 1 WHERE number <= ?", (last_look,))

    @property
    def last(self) -> Look | None:
        """The last look; None before the first."""
        rows = self._file.read("SELECT * FROM looks ORDER BY number DESC LIMIT 1")
        return next((_look(dict(row), json.loads(row["content"])) for row in rows), None)


def _look(row: Mapping[str, Any], claims: Sequence[Mapping[str, Any]]) -> Look:
    """Return the look of a row, whose content is data from JSON."""
    return Look(
        time_ms=row["time_ms"],
        finished=row["finished"],
        trained_s=row["trained_s"],
        claims=tuple(ClaimEvidence(**claim) for claim in claims),
    )
