"""The service as somebody outside uses it: by `sweeps`, and by what MLflow has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.docker.hosts import Host
from tests.docker.machines import Cluster
from tests.docker.running import LOCAL

BIN = Path(sys.executable).parent
SWEEP_S = 200.0


@dataclass
class Service:
    """The servers, and somebody outside who may use them."""

    cluster: Cluster
    tracking: dict[str, str]  # environment
    folder: Path  # of the one outside
    client: Host = LOCAL  # where that one is
    store: str = ""  # where MLflow's runs are, for who cannot reach the server

    def sweeps(self, *arguments: str, name: str = "sweeps") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            **self.command(*arguments, name=name), capture_output=True, text=True, timeout=SWEEP_S
        )

    def command(self, *arguments: str, name: str = "sweeps") -> dict[str, Any]:
        """What `subprocess` needs for a command of the one outside."""
        return {
            "args": [*self.client.command, BIN / name, *arguments],
            "cwd": self.folder,
            "env": {
                **os.environ,
                **self.cluster.client,
                **self.tracking,
                "RAY_API_SERVER_ADDRESS": self.cluster.dashboard,
            },
        }

    def status(self, sweep: str) -> dict[str, Any]:
        """The newest submission of a sweep."""
        done = self.sweeps("status", sweep, "--json")
        assert done.returncode == 0, done.stderr
        newest: dict[str, Any] = json.loads(done.stdout)[0]
        return newest

    def done(self, sweep: str) -> int:
        progress = self.status(sweep)["progress"]
        return progress["done"] if progress else 0

    @property
    def tracker(self) -> mlflow.MlflowClient:
        """Of the MLflow server, for whose calls `login` lasts."""
        return mlflow.MlflowClient(self.store or self.tracking["MLFLOW_TRACKING_URI"])

    def runs(self, sweep: str) -> list[Any]:
        """The runs of a sweep's trials, as the MLflow server has them."""
        with pytest.MonkeyPatch.context() as patch:
            self.login(patch)
            experiment = self.tracker.get_experiment_by_name(sweep)
            assert experiment
            found = self.tracker.search_runs([experiment.experiment_id], "tags.role = 'trial'")
            return list(found)

    def steps(self, runs: list[Any]) -> list[list[int]]:
        """The steps at which each run has its val_loss."""
        with pytest.MonkeyPatch.context() as patch:
            self.login(patch)
            history = self.tracker.get_metric_history
            return [[one.step for one in history(run.info.run_id, "val_loss")] for run in runs]

    def login(self, patch: pytest.MonkeyPatch) -> None:
        for name, value in self.tracking.items():
            patch.setenv(name, value)
