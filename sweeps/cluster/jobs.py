"""Sweeps as jobs of a Ray cluster, asked for by the name of the sweep.

Only the dashboard's address is needed, and the token (`RAY_AUTH_MODE`, `RAY_AUTH_TOKEN_PATH`, which
Ray's own client reads): nothing here joins the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobSubmissionClient

from analysis.errors import nearest
from sweeps.cluster.code_package import copy_code
from sweeps.process.summary import WANTS_JSON, Summary, last_summary, without_json
from trainables.errors import UserError, brief

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

STATUS = {"SUCCEEDED": "FINISHED"}  # what Ray calls otherwise than MLflow and we do
ACTIVE = ("PENDING", "RUNNING")
STOP_S = 60  # how long a sweep may take to save its trials and end
ENDING_S = 30.0  # what Ray takes to say so
SCRIPT = "run.sh"
CHANGES_NOTHING = "the sweep itself goes on, see `sweeps status`"


class NotThereError(UserError):
    """No cluster answers at the address, or it does not have the sweep."""


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
    message: str  # Ray's, about the end of the job
    progress: Summary | None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for programs."""
        return asdict(self)


class Cluster:
    """The jobs of a cluster."""

    def __init__(self, address: str) -> None:
        """Look for the cluster.

        Args:
            address: of its dashboard, ``http://host:8265``.

        Raises:
            NotThereError: nothing answers there.
            UserError: it is no address, or what answers refuses us.
        """
        self._address = _checked(address)
        for module in ("dashboard_sdk", "modules.job.sdk"):
            logging.getLogger(f"ray.dashboard.{module}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            os.environ.pop(name, None)  # Ray prefers them to the address that it is given
        with self._asked():
            self._client = JobSubmissionClient(self._address)

    @contextlib.contextmanager
    def _asked(self, then: str = "") -> Iterator[None]:
        """What goes wrong with a request, as a user's error."""
        try:
            yield
        except (ConnectionError, requests.ConnectionError, requests.Timeout):
            raise NotThereError(
                f"no Ray cluster answers at {self._address}; {then}{'; ' if then else ''}give its"
                " address with --address or RAY_API_SERVER_ADDRESS"
            ) from None
        except (RayError, RuntimeError, OSError, ValueError, requests.RequestException) as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if any(word in str(error) for word in ("401", "403", "uthenticat", "nauthoriz")):
                said = (
                    "it wants a token, or another one: set RAY_AUTH_MODE=token and"
                    " RAY_AUTH_TOKEN_PATH to a file with the cluster's"
                )
            raise UserError(
                f"the cluster at {self._address} did not do it: {said}{then and f'; {then}'}"
            ) from None

    def jobs(self) -> list[SweepJob]:
        """The submissions of all sweeps, the newest first; without their progress.

        Raises:
            UserError: the cluster does not answer.
        """
        with self._asked():
            details = self._client.list_jobs()
        found = [_job(one) for one in details if "sweep" in (one.metadata or {})]
        return sorted(found, key=lambda job: -job.submitted_ms)

    def submissions(self, sweep: str) -> list[SweepJob]:
        """All of a sweep, at least one, the newest first.

        Raises:
            NotThereError: the cluster knows no such sweep.
        """
        jobs = self.jobs()
        found = [job for job in jobs if job.sweep == sweep]
        if not found:
            known = nearest(sweep, {job.sweep for job in jobs})
            raise NotThereError(f"the cluster has no sweep {sweep!r}; {known}")
        return found

    def newest(self, sweep: str) -> SweepJob:
        """The newest submission of a sweep; errors as of `submissions`."""
        return self.submissions(sweep)[0]

    def with_progress(self, job: SweepJob) -> SweepJob:
        """Return the job with its progress, which the driver writes to its log as JSON."""
        return replace(job, progress=last_summary(self._log(job)))

    def submit(
        self, plan: Plan, file: Path | None, name_or_path: str, arguments: Sequence[str]
    ) -> SweepJob:
        """Send a sweep to the cluster, with the code that checked it.

        Args:
            plan: of the sweep, made here: what cannot be is refused before anything is sent.
            file: its file, which travels; None for a preset, which travels with the code.
            name_or_path: as the user wrote it.
            arguments: of `sweeps run` there, after the file.

        Raises:
            UserError: the sweep runs already, or the cluster does not take it.
        """
        from sweeps.tracking.description import code_version

        name = plan.sweep.name
        _refuse_active(job for job in self.jobs() if job.sweep == name)
        asked = shlex.join(["sweeps", "run", name_or_path, *arguments])
        metadata = _metadata(name, asked, code_version())
        with tempfile.TemporaryDirectory(prefix="sweeps-submit-") as scratch:
            folder = Path(scratch)
            copy_code(folder)
            if file is not None:
                shutil.copyfile(file, folder / file.name)
            _copy_corpus(plan.sweep.corpus, folder)
            command = ["python", "-m", "sweeps", "run", file.name if file else name_or_path]
            script = _script(name, shlex.join([*command, *arguments]))
            (folder / SCRIPT).write_bytes(os.fsencode(script))
            return self._start(f"exec sh {SCRIPT}", metadata, folder)

    def resume(self, sweep: str, arguments: Sequence[str]) -> SweepJob:
        """Submit again what the cluster kept of the last submission of a sweep.

        Raises:
            UserError: the cluster knows no such sweep, or it runs.
        """
        jobs = self.submissions(sweep)
        _refuse_active(jobs)
        metadata = _metadata(sweep, jobs[0].command, jobs[0].code_version)
        again = shlex.join(["exec", "sh", SCRIPT, *arguments])
        return self._start(f'cd "$SWEEPS_STATE/{_kept(sweep)}" && {again}', metadata, None)

    def logs(self, job: SweepJob) -> str:
        """Return the output of a sweep so far."""
        return "".join(without_json([self._log(job)]))

    def _log(self, job: SweepJob) -> str:
        with self._asked():
            log: str = self._client.get_job_logs(job.job)
        return log

    def follow(self, job: SweepJob) -> Iterator[str]:
        """Yield the output of a sweep until it ends.

        Raises:
            UserError: the connection broke.
        """
        with self._asked(CHANGES_NOTHING):
            yield from without_json(self._tail(job))
        self.wait(job, ENDING_S)  # the last line comes before the end

    def _tail(self, job: SweepJob) -> Iterator[str]:
        """Yield the log of a job in chunks, until the job ends."""
        loop = asyncio.new_event_loop()
        try:
            chunks = self._client.tail_job_logs(job.job)
            while True:
                try:
                    yield loop.run_until_complete(anext(chunks))
                except StopAsyncIteration:
                    break
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def stop(self, job: SweepJob) -> SweepJob:
        """Let the trials of a sweep save themselves, and end it.

        Raises:
            UserError: it does not run, or did not end in time.
        """
        if not job.is_active:
            raise UserError(f"sweep {job.sweep!r} does not run: it is {job.status}")
        with self._asked():
            self._client.stop_job(job.job)
        job = self.wait(job, STOP_S + ENDING_S)
        if job.is_active:
            raise UserError(f"sweep {job.sweep!r} has not ended yet; see `sweeps status`")
        return job

    def wait(self, job: SweepJob, wait_s: float) -> SweepJob:
        """The submission when it has ended, or as it is after some time."""
        deadline_s = time.monotonic() + wait_s
        while True:
            with self._asked():
                job = _job(self._client.get_job_info(job.job))
            if not job.is_active or time.monotonic() > deadline_s:
                return job
            time.sleep(0.5)

    def _start(self, entrypoint: str, metadata: dict[str, str], folder: Path | None) -> SweepJob:
        started = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        identifier = f"{metadata['sweep']}-{started}-{uuid.uuid4().hex[:4]}"
        environment = {
            "RAY_JOB_STOP_SIGNAL": "SIGINT",  # gently
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S),
            "PYTHONUNBUFFERED": "1",  # its output can be followed
            WANTS_JSON: "1",
            "SWEEPS_CODE_VERSION": metadata["code_version"],
            "SWEEPS_AGAIN": f"sweeps resume {metadata['sweep']}",
        }
        with self._asked():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=identifier,
                metadata=metadata,
                runtime_env={
                    "env_vars": environment,
                    **({"working_dir": str(folder)} if folder else {}),
                },
            )
            return _job(self._client.get_job_info(identifier))


def _checked(address: str) -> str:
    """The address of a dashboard, with its scheme.

    Raises:
        UserError: it is none; of other schemes Ray would import the Python module of that name.
    """
    whole = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(whole)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise UserError(
            f"{brief(address)} is no address of a cluster's dashboard; write it as http://HOST:8265"
        )
    return whole


def _refuse_active(jobs: Iterable[SweepJob]) -> None:
    for job in jobs:
        if job.is_active:
            raise UserError(
                f"sweep {job.sweep!r} is {job.status} on this cluster (job {job.job}, by"
                f" {job.user}); `sweeps logs {job.sweep} -f` follows it, `sweeps stop {job.sweep}`"
                " stops it"
            )


def _metadata(sweep: str, command: str, code_version: str) -> dict[str, str]:
    """What a job says of itself: `_job` reads it back."""
    user = getpass.getuser()
    return {"sweep": sweep, "user": user, "command": command, "code_version": code_version}


def _job(details: JobDetails) -> SweepJob:
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


def _kept(sweep: str) -> str:
    """Where the state directory of the cluster keeps the last submission of a sweep."""
    return f"sweeps/{sweep}/submission"


def _script(sweep: str, command: str) -> str:
    return f"""\
# Written by `sweeps submit`: keeps this folder for `sweeps resume`, and runs the sweep.
set -e
kept="${{SWEEPS_STATE:?the cluster has to name its state directory}}/{_kept(sweep)}"
if [ "$PWD" != "$kept" ]; then
    rm -rf "$kept.new"
    mkdir -p "$kept.new"
    cp -R . "$kept.new"
    rm -rf "$kept"
    mv "$kept.new" "$kept"
    cd "$kept"  # Ray may remove its own copy before the sweep has ended
fi
exec {command} "$@"
"""


def _copy_corpus(corpus: str, folder: Path) -> None:
    """A text of the user's own travels, if it lies below the working directory."""
    kind, _, name = corpus.partition(":")
    path = Path(name)
    if kind == "file" and not path.is_absolute() and ".." not in path.parts:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path)
