"""What stands for Ray's client of jobs where no cluster is needed."""

from __future__ import annotations

from typing import Any

from ray.job_submission import JobDetails, JobStatus, JobType

from sweeps.process.summary import Summary


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

    def get_job_logs(self, identifier: str) -> str:
        summary = Summary(2, 9, 0, 1, 0, 1.5, "x", "1 s")
        return f"{summary} | training\n{summary.to_json()}\nended\n"

    def submit_job(self, **submitted: Any) -> None:
        self.submitted = submitted

    def get_job_info(self, identifier: str) -> JobDetails:
        return self.list_jobs()[0]


class ForgetfulClient(RecordingClient):
    """Stands for Ray's client after the head was started again; `said` is what the job says."""

    said = ""

    def list_jobs(self) -> list[JobDetails]:
        return []

    def get_job_info(self, identifier: str) -> JobDetails:
        job = RecordingClient.list_jobs(self)[0]
        return job.model_copy(update={"submission_id": identifier, "status": JobStatus.FAILED})

    def get_job_logs(self, identifier: str) -> str:
        return f"Running entrypoint: {self.submitted['entrypoint']}\n{self.said}\n"

    def delete_job(self, identifier: str) -> None:
        self.submitted = {}
