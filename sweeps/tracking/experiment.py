"""The MLflow experiment of a sweep: its runs are found, created, and kept to one for each key."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.trials.mlflow_store import runs_of
from analysis.trials.sqlite_store import is_elsewhere, local_folder
from sweeps.records.events import EvaluationValues
from sweeps.records.records import SweepRecord, TrialRecord
from sweeps.tracking.run_contents import SOURCES, StoredRun
from trainables.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RefusedError(UserError):
    """The store cannot take this sweep, and asking again will not help."""


class Experiment:
    """The experiment of a sweep. Its methods raise what MLflow raises."""

    def __init__(
        self, client: MlflowClient, sweep: SweepRecord, artifact_root: Path | None, is_remote: bool
    ) -> None:
        """Open the experiment, or create it.

        Args:
            client: of the store.
            sweep: whose name the experiment has.
            artifact_root: where a new experiment keeps artifacts; None leaves it to the server.
            is_remote: the store is a server: the answer to a request may be lost.

        Raises:
            RefusedError: the experiment is deleted, or its artifacts were moved.
        """
        self._client = client
        self._sweep = sweep
        self._is_remote = is_remote
        self.id = self._open(artifact_root)

    def _open(self, artifact_root: Path | None) -> str:
        name = self._sweep.name
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_root.as_uri() if artifact_root else None
            experiment_id: str = self._client.create_experiment(name, artifact_location=location)
        elif experiment.lifecycle_stage == "deleted":
            raise RefusedError(
                f"the MLflow experiment {name!r} is deleted; restore it, or give the"
                " sweep another name"
            )
        else:
            _check_location(experiment.artifact_location, artifact_root)
            experiment_id = experiment.experiment_id
        return experiment_id

    def runs(self) -> tuple[list[Run], dict[str, list[Run]]]:
        """Return the runs of the sweep itself, and those of its trials by key."""
        parents, children = [], defaultdict(list)
        for run in runs_of(self._client, self.id):
            if run.data.tags.get("role") == "sweep":
                parents.append(run)
            elif "key" in run.data.tags:
                children[run.data.tags["key"]].append(run)
        return parents, children

    def open_parent(self, found: Sequence[Run]) -> str:
        """Return the id of the sweep's own run, which is created if none is found."""
        if found:
            return self.keep_one(found).run_id
        tags = {"role": "sweep", "sweep": self._sweep.name}
        run_name = f"sweep {self._sweep.name}"
        run = self._client.create_run(self.id, tags=tags, run_name=run_name)
        runs = list(runs_of(self._client, self.id, "sweep"))
        return self.keep_one(runs, run.info.run_id).run_id

    def create_run(self, record: TrialRecord, parent_id: str) -> StoredRun:
        """Create the run of a trial."""
        tags = {
            **record.content["tags"],
            "role": record.role,
            "sweep": self._sweep.name,
            "key": record.key,
            "code_version": self._sweep.content["code_version"],
            "mlflow.parentRunId": parent_id,
        }
        run = self._client.create_run(
            self.id,
            start_time=record.started_ms,
            tags=tags,
            run_name=record.content["name"],
        )
        if self._is_remote:  # a request whose answer was lost may have created another run
            found = list(self._client.search_runs([self.id], f"tags.key = '{record.key}'"))
            return self.keep_one(found, run.info.run_id)
        return StoredRun.of(run)

    def keep_one(self, runs: Sequence[Run], known_id: str | None = None) -> StoredRun:
        """Keep the known run, or else the oldest, and delete the others.

        There are several if a request was repeated because its answer was lost.
        """
        by_age = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        keep = next((run for run in by_age if run.info.run_id == known_id), by_age[0])
        for run in by_age:
            if run is not keep:
                self._client.delete_run(run.info.run_id)
        return StoredRun.of(keep)

    def evaluations(self, run_id: str) -> list[tuple[int, EvaluationValues]]:
        """Return the evaluations that a run has, by step, with their times in ms."""
        by_step: dict[int, dict[str, object]] = defaultdict(dict)
        times_ms = {}
        for name, source in SOURCES.items():
            for metric in self._client.get_metric_history(run_id, name):
                by_step[metric.step] |= {"step": metric.step, source: metric.value}
                times_ms[metric.step] = metric.timestamp
        return [(times_ms[step], evaluation) for step, evaluation in sorted(by_step.items())]


def _check_location(location: str, root: Path | None) -> None:
    """Check that artifacts of a moved state directory do not go to where it was.

    This concerns stores that are not a file in the state directory: those are corrected.

    Raises:
        RefusedError: they would.
    """
    folder = local_folder(location)
    if root and folder and is_elsewhere(location, root) and not folder.parents[1].exists():
        link = ["ln", "-s", str(root.parents[1]), str(folder.parents[1])]
        raise RefusedError(
            f"the artifacts of the sweep were at {folder}, which is gone; if the state directory"
            f" was moved, {shlex.join(link)} leads there again"
        )
