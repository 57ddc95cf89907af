"""A sweep in MLflow: one experiment, one run for the sweep, one for each trial key.

`SweepRuns` makes the store agree with the records of the outbox, whatever the store has: it looks
for a run before it creates one, and does not send again what a run has.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import RANKING_TABLE
from analysis.text.messages import without_password
from analysis.trials.mlflow_store import DECIDE, PLAN, PLANNED
from sweeps.records.events import EvaluationValues
from sweeps.records.outbox import Outbox
from sweeps.records.records import REMOVED, TRIAL, SweepRecord, TrialRecord
from sweeps.tracking.evidence import send_evidence
from sweeps.tracking.experiment import Experiment, RefusedError
from sweeps.tracking.run_contents import (
    REASONS,
    StoredRun,
    is_current,
    metrics_of,
    outcome_of,
    record_of,
)
from sweeps.tracking.run_notes import sweep_note, sweep_progress, trial_note, trial_title
from sweeps.tracking.store import mlflow_client
from sweeps.tracking.views import limit_charts
from trainables.persistence.storage import Storage
from trainables.worker.trial_log import LOG

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run

ENDS = ("FINISHED", *REASONS.values())  # with these statuses a run gets the trial's log
MAX_METRICS = 1_000  # in one request to MLflow
STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


class SweepRuns:
    """The runs of a sweep in an MLflow store. Its methods raise what MLflow raises."""

    def __init__(
        self,
        uri: str,
        outbox: Outbox,
        artifact_root: Path | None,
        storage: Storage,
        reports: Path,
        may_retire: Callable[[Sequence[TrialRecord]], None] | None = None,
    ) -> None:
        """Open the sweep's experiment, or create it, and compare its runs with the outbox.

        Args:
            uri: of the store.
            outbox: of the sweep; runs that it does not know, or that the store lacks, are
                recorded there.
            artifact_root: where a new experiment keeps artifacts; None leaves it to the server.
            storage: where the trials keep their state.
            reports: a folder of tables, for the sweep's run.
            may_retire: called with the trials of the store before those that the outbox does not
                know are retired; raises RefusedError to prevent it. None: they stay as they are.

        Raises:
            RefusedError: the experiment is deleted, or MLflow has no such kind of store.
            UserError: the store does not answer.
        """
        _check_kind(uri)
        self._client = mlflow_client(uri, driven=outbox.sweep.name)
        self._outbox, self._storage, self._reports = outbox, storage, reports
        self._sweep = outbox.sweep
        is_remote = uri.startswith("http")
        self._experiment = Experiment(self._client, self._sweep, artifact_root, is_remote)
        parents, children = self._experiment.runs()
        self._parent_id = self._experiment.open_parent(parents)
        if may_retire:
            self._retire(children, may_retire)
        self._runs = {key: self._compare(key, found) for key, found in children.items()}
        for record in outbox.trials():
            if record.run_id and record.key not in self._runs:
                outbox.resend(record.key)

    def send_trial(self, record: TrialRecord) -> None:
        """Make the run of a trial agree with its record, and mark it as sent in the outbox."""
        if record.status in ENDS:
            with self._storage.artifacts(record.key) as artifacts:
                self._send_trial(record, artifacts)
        else:
            self._send_trial(record, None)

    def _send_trial(self, record: TrialRecord, artifacts: Path | None) -> None:
        if record.key not in self._runs:
            self._runs[record.key] = self._experiment.create_run(record, self._parent_id)
        run, name = self._runs[record.key], record.content["name"]
        if not run.has_inputs:
            self._client.log_inputs(run.run_id, [_dataset(self._sweep.content["dataset"])])
            run.has_inputs = True
        evaluations = self._outbox.evaluations(record.key, unsent=True)
        self._send_values(record, run, _metrics(record, evaluations), artifacts)
        if run.name != name:
            self._client.update_run(run.run_id, name=name)
            run.name = name
        self._send_artifacts(record, run, artifacts)
        if record.status == "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
        else:
            status = "FINISHED" if record.status == "STOPPED" else record.status
            self._client.set_terminated(run.run_id, status, record.latest_ms or None)
        self._outbox.sent(record, run.run_id, [each["step"] for _, each in evaluations])

    def _send_values(
        self,
        record: TrialRecord,
        run: StoredRun,
        metrics: Sequence[Metric],
        artifacts: Path | None,
    ) -> None:
        """Send metrics, the params that the run lacks, and tags, in as few requests as allowed."""
        from mlflow.entities import Param, RunTag

        settings = record.content["params"]
        params = [Param(*item) for item in settings.items() if item[0] not in run.params]
        tags = [RunTag(*item) for item in self._tags(record, run, artifacts).items()]
        first, *rest = _batches(metrics, MAX_METRICS)
        self._client.log_batch(run.run_id, first, params, tags)
        for batch in rest:
            self._client.log_batch(run.run_id, batch)
        run.params |= settings.keys()

    def _send_artifacts(self, record: TrialRecord, run: StoredRun, folder: Path | None) -> None:
        """Send all files of a finished trial, and the log of one that failed or was stopped."""
        if folder is None:
            return
        if record.status == "FINISHED" and not run.has_artifacts and folder.is_dir():
            self._client.log_artifacts(run.run_id, str(folder))
            run.has_artifacts = True
        elif record.status in REASONS.values() and (folder / LOG).is_file():
            self._client.log_artifact(run.run_id, str(folder / LOG))

    def _tags(self, record: TrialRecord, run: StoredRun, artifacts: Path | None) -> dict[str, str]:
        tags = {**record.content["tags"], "role": record.role, "hardware": record.hardware}
        for tag, status in REASONS.items():
            reason = record.reason if record.status == status else ""
            if reason or tag in run.reasons:
                tags[tag] = reason
                run.reasons.add(tag)
        if record.status != "RUNNING":
            evaluations = [each for _, each in self._outbox.evaluations(record.key)]
            hosts = {each["host"] for each in evaluations if "host" in each}
            ids = self._experiment.id, run.run_id
            title = trial_title(record, self._sweep.name, hosts, ids, artifacts)
            tags["mlflow.note.content"] = trial_note(record, evaluations, title, artifacts)
        return tags

    def send_evidence(self) -> None:
        """Send the claims that the sweep decides and the looks at them, as far as it lacks them."""
        send_evidence(self._client, self._parent_id, self._outbox.looks)

    def send_sweep(self, record: SweepRecord) -> None:
        """Make the experiment and the sweep's run agree with its record, tables included."""
        losses = self._outbox.last_losses()
        for tag, value in record.content["views"].items():
            view = limit_charts(value, [*losses.values()])
            self._client.set_experiment_tag(self._experiment.id, tag, view)
        self._send_plan(record)
        if record.status == "RUNNING":
            self._client.update_run(self._parent_id, status="RUNNING")
        else:
            self._send_tables()
        tags = dict(record.content.get("tags", {}))  # not in an outbox of an earlier version
        trials = self._outbox.trials()
        best = _best(trials, losses)
        if best:
            self._send_best(losses[best.key])
            tags |= {"best_trial": best.content["name"], "best_key": best.key}
        progress = sweep_progress(trials, best, losses, self._experiment.id)
        files = {file.path for file in self._client.list_artifacts(self._parent_id)}
        ids = self._experiment.id, self._parent_id
        tags["mlflow.note.content"] = sweep_note(record, progress, ids, files)
        for tag, value in tags.items():
            self._client.set_tag(self._parent_id, tag, value)
        if record.status != "RUNNING":
            self._client.set_terminated(self._parent_id, record.status)
        self._outbox.sweep_sent(record.revision)

    def _send_tables(self) -> None:
        table = self._reports / RANKING_TABLE
        if table.exists():
            ranking = pd.DataFrame(**json.loads(table.read_text(encoding="utf-8")))
            self._client.log_table(self._parent_id, data=ranking, artifact_file=RANKING_TABLE)
            # log_table appends to the table of an earlier run of the sweep: the file is whole.
            self._client.log_artifacts(self._parent_id, str(self._reports))

    def _send_best(self, val_loss: float) -> None:
        """Show the lowest val_loss at the end of a trial as a metric of the sweep's run."""
        metrics = self._client.get_run(self._parent_id).data.metrics
        if metrics.get("best_val_loss") != val_loss:
            self._client.log_metric(self._parent_id, "best_val_loss", val_loss)

    def _send_plan(self, record: SweepRecord) -> None:
        """Send the list of planned trials, also of those that never begin.

        Of a search these are the trials of its grid and those that will confirm its winners.
        """
        if "studies" not in record.content:  # of an outbox of an earlier version
            return
        planned = [
            {"key": trial.key, **{name: trial.content[name] for name in ("name", "params", "tags")}}
            for trial in self._outbox.trials()
            if not trial.content["tags"].get("stage")
        ]
        planned += record.content["studies"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PLAN
            path.write_text(json.dumps(planned), encoding="utf-8")
            self._client.log_artifact(self._parent_id, str(path))
        self._client.set_tag(self._parent_id, PLANNED, str(len(planned)))

    def _retire(
        self,
        children: Mapping[str, Sequence[Run]],
        may_retire: Callable[[Sequence[TrialRecord]], None],
    ) -> None:
        """Retire the runs of trials that the outbox does not know.

        It was lost, or they come from another machine. The trials of a search need no permission,
        because the search may suggest them again.
        """
        trials = {
            key: record_of(key, runs[0])
            for key, runs in children.items()
            if runs[0].data.tags["role"] == TRIAL
        }
        self._bring_back(trials)
        unknown = [key for key in trials if self._outbox.trial(key) is None]
        searches = "search" in self._sweep.content.get("tags", {})
        if any(not (searches and trials[key].content["tags"].get("stage")) for key in unknown):
            may_retire([*reversed(trials.values())])  # oldest first
        for run in [run for key in unknown for run in children[key]]:
            self._client.set_tag(run.info.run_id, "role", REMOVED)

    def _bring_back(self, trials: Mapping[str, TrialRecord]) -> None:
        """Add the trials with further seeds that the outbox has lost, where it has other seeds."""
        if DECIDE not in self._sweep.content.get("tags", {}):
            return
        known = {_settings(record) for record in self._outbox.trials()}
        for key, record in trials.items():
            if record.is_further and not self._outbox.trial(key) and _settings(record) in known:
                self._outbox.add({key: record.content})

    def _compare(self, key: str, found: Sequence[Run]) -> StoredRun:
        """Keep one run of a key; if the outbox does not know that run, add what the run has."""
        record = self._outbox.trial(key)
        kept = self._experiment.keep_one(found, record.run_id if record else None)
        (run,) = (run for run in found if run.info.run_id == kept.run_id)
        if record is not None and record.run_id != kept.run_id:
            self._outbox.resend(key)
            self._outbox.adopt(
                key,
                kept.run_id,
                *outcome_of(run),
                self._experiment.evaluations(kept.run_id),
                is_current=is_current(run, record),
            )
        return kept


def _check_kind(uri: str) -> None:
    if uri.partition("://")[0].partition("+")[0] not in STORES:
        shown = without_password(uri)
        raise RefusedError(f"{shown} is no MLflow store; known: {', '.join(STORES)}")


def _metrics(
    record: TrialRecord, evaluations: Sequence[tuple[int, EvaluationValues]]
) -> list[Metric]:
    """Return the metrics of evaluations, each with its time in ms, and the costs of a trial."""
    from mlflow.entities import Metric

    costs = record.content.get("costs", {})  # not in an outbox of an earlier version
    return [
        Metric(name, value, time_ms, each["step"])
        for time_ms, each in evaluations
        for name, value in metrics_of(each).items()
    ] + [
        Metric(name, value, record.started_ms or record.latest_ms, 0)
        for name, value in costs.items()
    ]


def _dataset(about: Mapping[str, object]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput

    profile = {name: value for name, value in about.items() if name not in ("name", "digest")}
    name, digest, source = about["name"], str(about["digest"]), {"corpus": about["name"]}
    dataset = Dataset(name, digest[:36], "text", json.dumps(source), profile=json.dumps(profile))
    return DatasetInput(dataset)


def _settings(record: TrialRecord) -> frozenset[tuple[str, str]]:
    """Return the settings of a trial without its seed."""
    return frozenset(item for item in record.content["params"].items() if item[0] != "seed")


def _best(trials: Iterable[TrialRecord], losses: Mapping[str, float]) -> TrialRecord | None:
    """Return the trial with the lowest loss, of those that confirm winners if there are any."""
    ended = [trial for trial in trials if trial.key in losses]
    confirming = [trial for trial in ended if trial.is_confirming]
    return min(confirming or ended, key=lambda trial: losses[trial.key], default=None)


def _batches(metrics: Sequence[Metric], size: int) -> Iterator[Sequence[Metric]]:
    """Yield the metrics in parts; one empty part if there are none."""
    for start in range(0, max(1, len(metrics)), size):
        yield metrics[start : start + size]
