"""What `sweeps submit` and its like refuse; tests/docker/test_cluster.py has them at work."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result
from ray.job_submission import JobDetails, JobStatus, JobType

from sweeps.command import AGAIN, main
from sweeps.jobs import client


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert all(part in result.stderr for part in parts), result.stderr
    assert result.stderr.startswith("sweeps: ")
    assert "Traceback" not in result.output


def test_a_password_in_what_is_sent_to_a_cluster_is_refused() -> None:
    override = "search.storage=postgresql+psycopg://me:hidden@host/studies"
    result = CliRunner().invoke(main, ["submit", "quickstart", override])
    refused(
        result, "search.storage", "a password in a command or a sweep file is seen", "PGPASSWORD"
    )
    assert "hidden" not in result.output


@pytest.mark.parametrize("command", ["status", "logs", "stop", "resume"])
def test_a_cluster_that_does_not_answer_is_said(command: str) -> None:
    arguments = [] if command == "status" else ["my-sweep"]
    address = "http://127.0.0.1:9"
    result = CliRunner().invoke(main, [command, *arguments, "--address", address])
    refused(result, f"the cluster at {address} did not do it")


class RecordingClient:
    """Stands for Ray's client: keeps what is submitted."""

    def __init__(self, address: str) -> None:
        self.submitted: dict[str, Any] = {}

    def list_jobs(self) -> list[JobDetails]:
        metadata = {"sweep": "study", "command": "sweeps run study.yaml", "code_version": "0.1.0+a"}
        return [
            JobDetails(
                type=JobType.SUBMISSION,
                status=JobStatus.SUCCEEDED,
                submission_id="a",
                entrypoint="sh run.sh",
                metadata=metadata,
            )
        ]

    def submit_job(self, **submitted: Any) -> None:
        self.submitted = submitted

    def get_job_info(self, identifier: str) -> JobDetails:
        return self.list_jobs()[0]


def test_a_job_knows_the_command_that_lets_it_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "JobSubmissionClient", RecordingClient)
    cluster = client.Cluster("http://127.0.0.1:8265")
    cluster.resume("study", [])
    environment = cluster._client.submitted["runtime_env"]["env_vars"]
    assert environment[AGAIN] == "sweeps resume study"
    assert environment["SWEEPS_CODE_VERSION"] == "0.1.0+a"
