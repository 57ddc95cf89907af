"""Sweeps as jobs of a Ray cluster, found by the name of the sweep.

This needs only the address of the dashboard and the token, which Ray's client reads
(`RAY_AUTH_MODE`, `RAY_AUTH_TOKEN_PATH`): nothing here joins the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

from analysis.errors import nearest
from sweeps.cluster.submission import (
    KEPT,
    NOT_KEPT,
    SCRIPT,
    fill_submission,
    resubmit_command,
)
from sweeps.cluster.sweep_job import SweepJob, job_metadata, job_of
from sweeps.process.summary import WANTS_JSON, last_summary, without_json
from trainables.errors import UserError, brief

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

STOP_S = 60  # how long a sweep may take to save its trials and end
REQUEST_S = 120.0  # how long a request may take to be sent, and then to be answered
ENDING_S = 30.0  # how long Ray may take to report that a job has ended
CHANGES_NOTHING = "the sweep itself goes on, see `sweeps status`"


class NotThereError(UserError):
    """No cluster answers at the address, or the cluster does not have the sweep."""


class JobClient(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client, which by itself waits for ever if the network or the head is lost."""

    def _do_request(self, method: str, endpoint: str, **options: object) -> object:
        return super()._do_request(method, endpoint, timeout=REQUEST_S, **options)


class Cluster:
    """The jobs of a cluster."""

    def __init__(self, address: str) -> None:
        """Connect to the dashboard of a cluster.

        Args:
            address: of the dashboard, ``http://host:8265``.

        Raises:
            NotThereError: nothing answers there.
            UserError: it is no address, or the server there refuses the request.
        """
        self._address = _checked(address)
        for module in ("modules.dashboard_sdk", "modules.job.sdk"):
            logging.getLogger(f"ray.dashboard.{module}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            os.environ.pop(name, None)  # Ray prefers them to the address that is passed
        with self._request():
            self._client = JobClient(self._address)

    @contextlib.contextmanager
    def _request(self, then: str = "") -> Iterator[None]:
        """Context manager: raise what goes wrong with a request as a `UserError`."""
        try:
            yield
        except (ConnectionError, requests.ConnectionError, requests.Timeout):
            raise NotThereError(
                f"no Ray cluster answers at {self._address}; {then}{'; ' if then else ''}give its"
                " address with --address or RAY_API_SERVER_ADDRESS"
            ) from None
        except (RayError, RuntimeError, OSError, ValueError, requests.RequestException) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if any(word in str(error) for word in ("401", "403", "uthenticat", "nauthoriz")):
                reason = (
                    "it wants a token, or another one: set RAY_AUTH_MODE=token and"
                    " RAY_AUTH_TOKEN_PATH to a file with the cluster's"
                )
            raise UserError(
                f"the cluster at {self._address} refused the request:"
                f" {reason}{then and f'; {then}'}"
            ) from None

    def jobs(self) -> list[SweepJob]:
        """Return the submissions of all sweeps, the newest first, without their progress.

        Raises:
            UserError: the cluster does not answer.
        """
        with self._request():
            details = self._client.list_jobs()
        found = [job_of(job) for job in details if "sweep" in (job.metadata or {})]
        return sorted(found, key=lambda job: -job.submitted_ms)

    def submissions(self, sweep: str) -> list[SweepJob]:
        """Return the submissions of a sweep, at least one, the newest first.

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
        """Return the newest submission of a sweep; errors as in `submissions`."""
        return self.submissions(sweep)[0]

    def with_progress(self, job: SweepJob) -> SweepJob:
        """Return the job with its progress, which the driver writes to its log as JSON."""
        return replace(job, progress=last_summary(self._log(job)))

    def submit(
        self, plan: Plan, file: Path | None, name_or_path: str, arguments: Sequence[str]
    ) -> SweepJob:
        """Send a sweep to the cluster, with the code that checked it.

        Args:
            plan: of the sweep, made here, so that mistakes are refused before anything is sent.
            file: of the sweep; None for a preset, which travels with the code.
            name_or_path: of the sweep, as the user wrote it.
            arguments: of `sweeps run` there, after the file.

        Raises:
            UserError: the sweep runs already, or the cluster refuses it.
        """
        from sweeps.tracking.description import code_version

        name = plan.sweep.name
        _refuse_active(job for job in self.jobs() if job.sweep == name)
        command = shlex.join(["sweeps", "run", name_or_path, *arguments])
        version = code_version()
        metadata = job_metadata(name, command, version)
        with tempfile.TemporaryDirectory(prefix="sweeps-submit-") as scratch:
            folder = Path(scratch)
            fill_submission(folder, plan.sweep, file, name_or_path, arguments, version)
            return self._start(f"exec sh {SCRIPT}", metadata, folder)

    def resume(self, sweep: str, arguments: Sequence[str]) -> SweepJob:
        """Submit the last submission of a sweep again, which the cluster has kept.

        Raises:
            UserError: the cluster knows no such sweep, or the sweep runs.
        """
        jobs = [job for job in self.jobs() if job.sweep == sweep]
        _refuse_active(jobs)
        command = resubmit_command(sweep, arguments)
        if jobs:
            metadata = job_metadata(sweep, jobs[0].command, jobs[0].code_version)
            return self._start(command, metadata, None)
        # A head that was started again has forgotten its jobs, but not what was submitted.
        forgotten = self._start(command, job_metadata(sweep, f"sweeps resume {sweep}", ""), None)
        if not self._has_kept(forgotten):
            with self._request():
                self._client.delete_job(forgotten.job)
            self.submissions(sweep)  # raises
        return forgotten

    def _has_kept(self, job: SweepJob) -> bool:
        """Return whether the cluster has what a resumed job needs, which its first line says."""
        deadline_s = time.monotonic() + ENDING_S
        while KEPT not in (lines := self._log(job).splitlines()) and time.monotonic() < deadline_s:
            if NOT_KEPT in lines:
                self.wait(job, ENDING_S)  # only then it can be deleted
                return False
            time.sleep(0.5)
        return True

    def logs(self, job: SweepJob) -> str:
        """Return the output of a sweep so far."""
        return "".join(without_json([self._log(job)]))

    def _log(self, job: SweepJob) -> str:
        with self._request():
            log: str = self._client.get_job_logs(job.job)
        return log

    def follow(self, job: SweepJob) -> Iterator[str]:
        """Yield the output of a sweep until it ends.

        Raises:
            UserError: the connection broke.
        """
        with self._request(CHANGES_NOTHING):
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
        """Stop a sweep after its trials have saved themselves.

        Raises:
            UserError: the sweep does not run, or did not end in time.
        """
        if not job.is_active:
            raise UserError(f"sweep {job.sweep!r} does not run: it is {job.status}")
        with self._request():
            self._client.stop_job(job.job)
        job = self.wait(job, STOP_S + ENDING_S)
        if job.is_active:
            raise UserError(f"sweep {job.sweep!r} has not ended yet; see `sweeps status`")
        return job

    def wait(self, job: SweepJob, wait_s: float) -> SweepJob:
        """Return the submission when it has ended, or its state after `wait_s`."""
        deadline_s = time.monotonic() + wait_s
        while True:
            with self._request():
                job = job_of(self._client.get_job_info(job.job))
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
            "SWEEPS_AGAIN": f"sweeps resume {metadata['sweep']}",
        }
        with self._request():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=identifier,
                metadata=metadata,
                runtime_env={
                    "env_vars": environment,
                    **({"working_dir": str(folder)} if folder else {}),
                },
            )
            return job_of(self._client.get_job_info(identifier))


def _checked(address: str) -> str:
    """Return the address of a dashboard with its scheme.

    Raises:
        UserError: it is no such address; for another scheme Ray would import a module of that name.
    """
    whole = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(whole)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
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
