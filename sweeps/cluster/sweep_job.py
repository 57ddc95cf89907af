"""One submission of a sweep to a cluster, as Ray's job API shows it."""

from __future__ import annotations

import getpass
import time
from dataclasses import asdict, dataclass

from ray.job_submission import JobDetails

from sweeps.process.summary import Summary

STATUS = {"SUCCEEDED": "FINISHED"}  # Ray's names that differ from those of MLflow
ACTIVE = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class SweepJob:
    """One submission of a sweep."""

    sweep: str
    job: str  # Ray's submission id
    status: str  # PENDING, RUNNING, FINISHED, FAILED or STOPPED
    user: str
    command: str
    code_version: str
    submitted_ms: int
    seconds: float  # since it was submitted, or until it ended
    message: str  # from Ray, about the end of the job
    progress: Summary | None

    @property
    def is_active(self) -> bool:
        """True if it waits for its start or runs."""
        return self.status in ACTIVE

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return asdict(self)


def job_metadata(sweep: str, command: str, code_version: str) -> dict[str, str]:
    """Return the metadata of a job, which `job_of` reads back."""
    user = getpass.getuser()
    return {"sweep": sweep, "user": user, "command": command, "code_version": code_version}


def job_of(details: JobDetails) -> SweepJob:
    """Return a job of Ray as the submission of a sweep, without its progress."""
    metadata = details.metadata or {}
    status = details.status.value
    started_ms = details.start_time or 0
    ended_ms = details.end_time or time.time() * 1000
    return SweepJob(
        sweep=metadata["sweep"],
        job=details.submission_id or "",
        status=STATUS.get(status, status),
        user=metadata.get("user", ""),
        command=metadata.get("command", ""),
        code_version=metadata.get("code_version", ""),
        submitted_ms=started_ms,
        seconds=max(0.0, (ended_ms - started_ms) / 1000),
        message=details.message or "",
        progress=None,
    )
