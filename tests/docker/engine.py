"""The stack of compose.yaml on a real Docker engine: built, started, asked and disturbed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tests.docker.files import DOCKER, ROOT

IMAGE = "bigram-sweeps:0.1.0-cpu"
JOBS = "http://ray-head:8265"
HOST = "127.0.0.79"  # where the tests publish, beside any stack that is running
TRIALS = 38
LIMIT_S = 600.0
ASK_S = 3.0  # a command takes one to two seconds of a core

Curves = dict[str, list[tuple[int, float]]]  # val_loss in nats by step, of each trial's key


def missing() -> str | None:
    """What of an engine with Compose is not there; None where all is."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "the command docker is not installed"
        if done.returncode != 0:
            return f"{' '.join(command)} says: {done.stderr.strip().splitlines()[-1]}"
    return None


@dataclass(frozen=True)
class Image:
    size: int  # bytes
    commit: str
    built_s: float


def build() -> Image:
    """Make the image from this checkout.

    BUILD_ARGS has further arguments for `docker build`, such as an index of packages.
    """
    arguments = os.environ.get("BUILD_ARGS", "").split()
    began, commit = time.monotonic(), run(["git", "describe", "--always", "--dirty"], cwd=ROOT)
    run(
        ["docker", "build", *arguments, "--file", "docker/Dockerfile", "--target", "service",
         "--build-arg", f"COMMIT={commit.strip()}", "--tag", IMAGE, "."],
        cwd=ROOT, limit_s=1800.0,
    )  # fmt: skip
    size = run(["docker", "image", "inspect", "--format", "{{.Size}}", IMAGE])
    return Image(int(size), commit.strip(), time.monotonic() - began)


def run(command: Sequence[str], *, cwd: Path | None = None, limit_s: float = LIMIT_S) -> str:
    """Run a command to its end, and return its standard output.

    Raises:
        AssertionError: the exit code is not 0.
    """
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=limit_s, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
    return done.stdout


@dataclass
class Stack:
    """A copy of docker/ with secrets of its own, started as a project of its own."""

    folder: Path
    project: str
    extra: str = ""  # a further compose file's content

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        for path in [*DOCKER.glob("compose*.yaml"), DOCKER / "make-secrets.sh"]:
            shutil.copy(path, self.folder)
        shutil.copy(DOCKER / ".env.example", self.folder)
        (self.folder / "extra.yaml").write_text(self.extra or "services: {}\n")
        run([str(self.folder / "make-secrets.sh")])
        most = min(
            65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        )  # an engine here has it too
        self.set(
            PUBLISH_HOST=HOST, NOFILE=str(most), SWEEPS_UI_ADDRESS=self.mlflow,
            MLFLOW_ALLOWED_HOSTS=f"mlflow,{HOST}",
        )  # fmt: skip

    def set(self, **settings: str) -> None:
        path = self.folder / ".env"
        lines = [
            line for line in path.read_text().splitlines() if line.split("=")[0] not in settings
        ]
        path.write_text("\n".join([*lines, *(f"{k}={v}" for k, v in settings.items())]) + "\n")

    @property
    def mlflow(self) -> str:
        return f"http://{HOST}:5000"

    def compose(self, *arguments: str, limit_s: float = LIMIT_S) -> str:
        files = ["--file", "compose.yaml", "--file", "extra.yaml"]
        command = ["docker", "compose", "--project-name", self.project, *files, *arguments]
        return run(command, cwd=self.folder, limit_s=limit_s)

    def up(self) -> float:
        """Start all that is not running; return the seconds until all are healthy."""
        began = time.monotonic()
        self.compose("up", "--detach", "--no-build", "--wait")
        return time.monotonic() - began

    def container(self, service: str, number: int = 1) -> str:
        return f"{self.project}-{service}-{number}"

    def exec(self, service: str, *command: str) -> str:
        return self.compose("exec", "--no-TTY", service, *command)

    def fourth(
        self, *command: str, network: str = "default", has_token: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run in a container beside those of the stack."""
        token = f"{self.folder}/secrets/ray_token:/run/secrets/ray_token:ro"
        credentials = ["--volume", token, "--env", "RAY_AUTH_TOKEN_PATH=/run/secrets/ray_token"]
        return subprocess.run(
            ["docker", "run", "--rm", "--network", f"{self.project}_{network}",
             *(credentials if has_token else []), IMAGE, *command],
            capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip

    # ---- sweeps ----

    def submit(self, name: str) -> None:
        done = self.fourth("sweeps", "submit", "quickstart", f"name={name}", "--address", JOBS)
        assert done.returncode == 0, done.stderr

    def resume(self, name: str) -> None:
        self.exec("ray-head", "sweeps", "resume", name, "--address", JOBS)

    def logs(self, name: str) -> list[str]:
        return self.exec("ray-head", "sweeps", "logs", name, "--address", JOBS).splitlines()

    def status(self, name: str) -> Mapping[str, Any]:
        """What `sweeps status --json` has of the newest job of a sweep."""
        listed = self.exec("ray-head", "sweeps", "status", "--json", "--address", JOBS)
        jobs = [job for job in json.loads(listed) if job["sweep"] == name]
        return max(jobs, key=lambda job: job["submitted_ms"]) if jobs else {}

    def wait(self, name: str, until: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            status = self.status(name)
            if until(status):
                return status
            time.sleep(ASK_S)
        raise AssertionError(f"{name}: {self.status(name)}\n{self.logs(name)[-20:]}")

    def wait_for_trials(self, name: str, trials: int) -> None:
        self.wait(name, lambda status: (status.get("progress") or {}).get("done", 0) >= trials)

    def wait_for_end(self, name: str) -> str:
        ended = ("FINISHED", "FAILED", "STOPPED")
        return str(self.wait(name, lambda status: status.get("status") in ended)["status"])

    # ---- what MLflow has ----

    def client(self) -> MlflowClient:
        password = (self.folder / "secrets" / "mlflow_admin_password").read_text()
        os.environ.update(MLFLOW_TRACKING_USERNAME="admin", MLFLOW_TRACKING_PASSWORD=password)
        return MlflowClient(self.mlflow)

    def runs(self, name: str, role: str = "trial") -> list[Any]:
        client = self.client()
        experiment = client.get_experiment_by_name(name)
        query = f"tags.role = '{role}'"
        return list(client.search_runs([experiment.experiment_id], query, max_results=1000))

    def curves(self, name: str) -> Curves:
        """Of a sweep that is over: each trial one run, FINISHED, each step once.

        Raises:
            AssertionError: it is otherwise.
        """
        client, runs = self.client(), self.runs(name)
        assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
        found = {
            run.data.tags["key"]: sorted(
                (metric.step, metric.value)
                for metric in client.get_metric_history(run.info.run_id, "val_loss")
            )
            for run in runs
        }
        assert len(found) == TRIALS, "a trial has two runs"
        for curve in found.values():
            steps = [step for step, _ in curve]
            assert len(set(steps)) == len(steps), f"a step is there twice: {steps}"
        return found
