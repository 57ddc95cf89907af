"""A sweep in MLflow: one experiment, one run for the sweep, one for each trial key.

`SweepRuns` makes the store agree with records of the outbox, whatever it holds: a run is looked for
before it is made, and what it has is not sent again.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import RANKING_TABLE
from analysis.text.document import as_code, as_text, code_block
from analysis.text.links import artifact_link, artifact_source, run_link
from analysis.text.messages import without_password
from analysis.trials.mlflow_store import PICTURE, PLAN, PLANNED, REPORT, report_link, runs_of
from analysis.trials.sqlite_store import is_elsewhere, local_folder
from analysis.trials.table import METRICS
from sweeps.records.outbox import Outbox
from sweeps.records.records import REMOVED, TRIAL, SweepRecord, TrialRecord
from sweeps.tracking.store import mlflow_client
from sweeps.tracking.views import cut, view_link
from trainables.errors import UserError
from trainables.persistence.artifacts import SAMPLE
from trainables.persistence.storage import Storage
from trainables.worker.trial_log import LOG

SOURCES = dict(  # what an evaluation calls the metrics
    zip(
        METRICS,
        ("train_loss", "val_loss", "best_val_loss", "tokens_per_s", "training_s"),
        strict=True,
    )
)
USAGE = "system/{}"  # what a page of MLflow shows under "System metrics"
REASONS = {"failure": "FAILED", "stopped": "STOPPED"}  # tags that say why, by status
ENDS = ("FINISHED", *REASONS.values())  # then a run gets the trial's log
MAX_METRICS = 1_000  # in one request to MLflow
STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


class RefusedError(UserError):
    """The store cannot take this sweep, and asking again will not help."""


@dataclass
class _Run:
    """What the store has of a run, as far as it is known here."""

    run_id: str
    name: str
    params: set[str]
    reasons: set[str]  # the tags of `REASONS` that it has
    has_inputs: bool
    has_artifacts: bool = False

    @staticmethod
    def of(run: Any) -> _Run:
        return _Run(
            run_id=run.info.run_id,
            name=run.info.run_name,
            params=set(run.data.params),
            reasons=REASONS.keys() & run.data.tags.keys(),
            has_inputs=bool(run.inputs and run.inputs.dataset_inputs),
        )


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
        """Open the sweep's experiment, made if need be, and compare its runs with the outbox.

        Args:
            uri: of the store.
            outbox: of the sweep; learns what the store has and what it lacks.
            artifact_root: where a new experiment keeps artifacts; None leaves it to the server.
            storage: where the trials keep their state.
            reports: a folder of tables, for the sweep's run.
            may_retire: called with the trials that the store has, where the outbox does not know
                some of them, which are then retired; raises RefusedError to prevent that. None
                leaves them as they are.

        Raises:
            RefusedError: the experiment is deleted, or MLflow has no such kind of store.
            UserError: the store does not answer.
        """
        if uri.partition("://")[0].partition("+")[0] not in STORES:
            shown = without_password(uri)
            raise RefusedError(f"{shown} is no MLflow store; known: {', '.join(STORES)}")
        self._client = mlflow_client(uri, driven=outbox.sweep.name)
        self._is_remote = uri.startswith("http")
        self._outbox = outbox
        self._storage = storage
        self._reports = reports
        self._sweep = outbox.sweep
        self._experiment_id = self._open_experiment(artifact_root)
        parents = []
        children = defaultdict(list)
        for run in runs_of(self._client, self._experiment_id):
            if run.data.tags.get("role") == "sweep":
                parents.append(run)
            elif "key" in run.data.tags:
                children[run.data.tags["key"]].append(run)
        self._parent_id = self._keep_one(parents).run_id if parents else self._create_parent()
        if may_retire:
            self._retire(children, may_retire)
        self._runs = {key: self._compare(key, found) for key, found in children.items()}
        for record in outbox.trials():
            if record.run_id and record.key not in self._runs:
                outbox.resend(record.key)

    def send_trial(self, record: TrialRecord) -> None:
        """Make the run of a trial agree with its record, and tell the outbox."""
        if record.status in ENDS:
            with self._storage.artifacts(record.key) as artifacts:
                self._send_trial(record, artifacts)
        else:
            self._send_trial(record, None)

    def _send_trial(self, record: TrialRecord, artifacts: Path | None) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if record.key not in self._runs:
            self._runs[record.key] = self._create(record)
        run, content = self._runs[record.key], record.content
        if not run.has_inputs:
            self._client.log_inputs(run.run_id, [self._dataset()])
            run.has_inputs = True
        evaluations = self._outbox.evaluations(record.key, unsent=True)
        metrics = [
            Metric(name, value, time_ms, each["step"])
            for time_ms, each in evaluations
            for name, value in _metrics(each).items()
        ]
        costs = content.get("costs", {})  # not in an outbox of an earlier version
        metrics += [
            Metric(name, value, record.started_ms or record.latest_ms, 0)
            for name, value in costs.items()
        ]
        params = [Param(*item) for item in content["params"].items() if item[0] not in run.params]
        tags = [RunTag(*item) for item in self._tags(record, run, artifacts).items()]
        first, *rest = _batches(metrics, MAX_METRICS)
        self._client.log_batch(run.run_id, first, params, tags)
        for batch in rest:
            self._client.log_batch(run.run_id, batch)
        run.params |= content["params"].keys()
        if run.name != content["name"]:
            self._client.update_run(run.run_id, name=content["name"])
            run.name = content["name"]
        self._send_artifacts(record, run, artifacts)
        if record.status == "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
        else:
            status = "FINISHED" if record.status == "STOPPED" else record.status
            self._client.set_terminated(run.run_id, status, record.latest_ms or None)
        self._outbox.sent(record, run.run_id, [each["step"] for _, each in evaluations])

    def _send_artifacts(self, record: TrialRecord, run: _Run, folder: Path | None) -> None:
        """All that a trial left behind when it is finished; its log however it ended."""
        if folder is None:
            return
        if record.status == "FINISHED" and not run.has_artifacts and folder.is_dir():
            self._client.log_artifacts(run.run_id, str(folder))
            run.has_artifacts = True
        elif record.status in REASONS.values() and (folder / LOG).is_file():
            self._client.log_artifact(run.run_id, str(folder / LOG))

    def _tags(self, record: TrialRecord, run: _Run, artifacts: Path | None) -> dict[str, str]:
        tags = {**record.content["tags"], "role": record.role, "hardware": record.hardware}
        for tag, status in REASONS.items():
            reason = record.reason if record.status == status else ""
            if reason or tag in run.reasons:
                tags[tag] = reason
                run.reasons.add(tag)
        if record.status != "RUNNING":
            tags["mlflow.note.content"] = self._note(record, run, artifacts)
        return tags

    def send_sweep(self, record: SweepRecord) -> None:
        """Make the experiment and the sweep's run agree with their record, tables included."""
        losses = self._outbox.last_losses()
        for tag, value in record.content["views"].items():
            self._client.set_experiment_tag(
                self._experiment_id, tag, cut(value, [*losses.values()])
            )
        self._send_plan(record)
        if record.status == "RUNNING":
            self._client.update_run(self._parent_id, status="RUNNING")
        else:
            table = self._reports / RANKING_TABLE
            if table.exists():
                ranking = pd.DataFrame(**json.loads(table.read_text(encoding="utf-8")))
                self._client.log_table(self._parent_id, data=ranking, artifact_file=RANKING_TABLE)
                # log_table appends to the table of an earlier run of the sweep: the file is whole.
                self._client.log_artifacts(self._parent_id, str(self._reports))
        tags = dict(record.content.get("tags", {}))  # not in an outbox of an earlier version
        trials = self._outbox.trials()
        best = _best(trials, losses)
        if best:
            self._send_best(losses[best.key])
            tags |= {"best_trial": best.content["name"], "best_key": best.key}
        tags["mlflow.note.content"] = self._sweep_note(record, trials, best, losses)
        for tag, value in tags.items():
            self._client.set_tag(self._parent_id, tag, value)
        if record.status != "RUNNING":
            self._client.set_terminated(self._parent_id, record.status)
        self._outbox.sweep_sent(record.revision)

    def _send_best(self, val_loss: float) -> None:
        """Let the sweep's run show the lowest val_loss at the end of a trial."""
        metrics = self._client.get_run(self._parent_id).data.metrics
        if metrics.get("best_val_loss") != val_loss:
            self._client.log_metric(self._parent_id, "best_val_loss", val_loss)

    def _sweep_note(
        self,
        record: SweepRecord,
        trials: Sequence[TrialRecord],
        best: TrialRecord | None,
        losses: Mapping[str, float],
    ) -> str:
        """The page of the sweep's run; it folds away what comes later.

        Where to look, how far the sweep is and what is best, what it is about, and its picture.
        """
        counts = Counter(trial.status for trial in trials)
        done = sum(trial.is_done for trial in trials)
        said = [f"**{done} of {len(trials)} trials are done**"]
        for status, words in {"STOPPED": "stopped early", "FAILED": "failed"}.items():
            said += [f"{counts[status]} {words}"] if counts[status] else []
        done_and_best = ", ".join(said) + "."
        if best:
            of = " of the search, not confirmed on fresh seeds" if best.is_suggested else ""
            of = " of the trials on fresh seeds" if best.is_confirming else of
            done_and_best += (
                f" Best{of}: {as_text(best.content['name'])}, validation loss"
                f" **{losses[best.key]:.4f}** nats per character"
            )
            if best.run_id:
                done_and_best += f" ([its run]({run_link(self._experiment_id, best.run_id)}))"
            done_and_best += "."
        files = {file.path for file in self._client.list_artifacts(self._parent_id)}
        links = [report_link(self._experiment_id, self._parent_id)] if REPORT in files else []
        for view in ("ranking", "curves"):
            links.append(f"[{view}]({view_link('', self._experiment_id, view)[1:]})")
        about = [as_text(part) for part in record.content["description"].split("\n\n") if part]
        lines = [" · ".join(links), done_and_best, *about]
        if PICTURE in files:
            lines.append(f"![val_loss]({artifact_source(self._parent_id, PICTURE)})")
        return "\n\n".join(lines)

    def _send_plan(self, record: SweepRecord) -> None:
        """All trials that the sweep is to have, also where they never begin; of a search the grid,
        and what will confirm its winners."""
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

    def _open_experiment(self, artifact_root: Path | None) -> str:
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

    def _create_parent(self) -> str:
        tags = {"role": "sweep", "sweep": self._sweep.name}
        run_name = f"sweep {self._sweep.name}"
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=run_name)
        found = list(runs_of(self._client, self._experiment_id, "sweep"))
        return self._keep_one(found, run.info.run_id).run_id

    def _keep_one(self, runs: Sequence[Any], known_id: str | None = None) -> _Run:
        """Delete all runs but one: a request whose answer was lost was sent twice."""
        by_age = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        keep = next((run for run in by_age if run.info.run_id == known_id), by_age[0])
        for run in by_age:
            if run is not keep:
                self._client.delete_run(run.info.run_id)
        return _Run.of(keep)

    def _retire(
        self,
        children: Mapping[str, Sequence[Any]],
        may_retire: Callable[[Sequence[TrialRecord]], None],
    ) -> None:
        """Retire the runs of trials that the outbox does not know: it was lost, or they come from
        another machine. Those of a search are not asked about: it may suggest them again."""
        trials = {
            key: _record_of(key, runs[0])
            for key, runs in children.items()
            if runs[0].data.tags["role"] == TRIAL
        }
        unknown = [key for key in trials if self._outbox.trial(key) is None]
        searches = "search" in self._sweep.content.get("tags", {})
        if any(not (searches and trials[key].content["tags"].get("stage")) for key in unknown):
            may_retire([*reversed(trials.values())])  # oldest first
        for run in [run for key in unknown for run in children[key]]:
            self._client.set_tag(run.info.run_id, "role", REMOVED)

    def _compare(self, key: str, found: Sequence[Any]) -> _Run:
        """Hold the runs that the store has for a key against the outbox."""
        record = self._outbox.trial(key)
        kept = self._keep_one(found, record.run_id if record else None)
        (run,) = (run for run in found if run.info.run_id == kept.run_id)
        if record is not None and record.run_id != kept.run_id:
            self._outbox.resend(key)
            self._outbox.adopt(
                key,
                kept.run_id,
                *_ended(run),
                self._evaluations(kept.run_id),
                is_current=_shows(run, record),
            )
        return kept

    def _evaluations(self, run_id: str) -> list[tuple[int, dict[str, Any]]]:
        """What a run has of its trial's evaluations, with their times in ms."""
        by_step: dict[int, dict[str, Any]] = defaultdict(dict)
        times_ms = {}
        for name, source in SOURCES.items():
            for metric in self._client.get_metric_history(run_id, name):
                by_step[metric.step] |= {"step": metric.step, source: metric.value}
                times_ms[metric.step] = metric.timestamp
        return [(times_ms[step], evaluation) for step, evaluation in sorted(by_step.items())]

    def _create(self, record: TrialRecord) -> _Run:
        tags = {
            **record.content["tags"],
            "role": record.role,
            "sweep": self._sweep.name,
            "key": record.key,
            "code_version": self._sweep.content["code_version"],
            "mlflow.parentRunId": self._parent_id,
        }
        run = self._client.create_run(
            self._experiment_id,
            start_time=record.started_ms,
            tags=tags,
            run_name=record.content["name"],
        )
        if self._is_remote:  # a request whose answer was lost, now or before, has made another
            return self._keep_one(self._find(record.key), run.info.run_id)
        return _Run.of(run)

    def _find(self, key: str) -> list[Any]:
        return list(self._client.search_runs([self._experiment_id], f"tags.key = '{key}'"))

    def _dataset(self) -> Any:
        from mlflow.entities import Dataset, DatasetInput

        about = dict(self._sweep.content["dataset"])
        name, digest = about.pop("name"), about.pop("digest")
        source, profile = json.dumps({"corpus": name}), json.dumps(about)
        return DatasetInput(Dataset(name, digest[:36], "text", source, profile=profile))

    def _note(self, record: TrialRecord, run: _Run, artifacts: Path | None) -> str:
        """A run page's Markdown: the outcome, the settings and some text."""
        evaluations = self._outbox.evaluations(record.key)
        has_log = artifacts is not None and (artifacts / LOG).is_file()
        lines = [self._title(record, run, [each for _, each in evaluations], has_log), ""]
        if record.status == "FAILED":
            lines += [f"Failed: {as_text(record.reason)}", ""]
        elif record.status == "STOPPED":
            lines += [f"Stopped early: {as_text(record.reason)}", ""]
        if record.status != "FAILED" and evaluations:
            _, last = evaluations[-1]
            lines += [
                f"Validation loss **{last['val_loss']:.5f}** nats per character"
                f" (training {last['train_loss']:.5f}) after {last['step']} steps.",
                "",
            ]
        lines += ["| setting | value |", "|---|---|"]
        for name, value in record.content["params"].items():
            lines.append(f"| {as_text(name)} | {as_text(value)} |")
        if record.status == "FINISHED" and artifacts and (artifacts / SAMPLE).is_file():
            text = (artifacts / SAMPLE).read_text(encoding="utf-8")
            lines += ["", "Text that it writes:", "", code_block(text)]
        return "\n".join(lines)

    def _title(
        self,
        record: TrialRecord,
        run: _Run,
        evaluations: Sequence[Mapping[str, Any]],
        has_log: bool,
    ) -> str:
        """Which trial it is, where it ran, and its log: the page folds away what comes later."""
        title = f"**{as_text(record.content['name'])}** of sweep {as_code(self._sweep.name)}"
        if hosts := sorted({each["host"] for each in evaluations if "host" in each}):
            title += f", trained on {as_text(', '.join(hosts))}"
        if has_log:
            title += f": [{LOG}]({artifact_link(self._experiment_id, run.run_id, LOG)})"
        return title


def _check_location(location: str, root: Path | None) -> None:
    """Refuse artifacts of a state directory that was moved, where the store is not a file of ours.

    Raises:
        RefusedError: they would go to where it was.
    """
    folder = local_folder(location)
    if root and folder and is_elsewhere(location, root) and not folder.parents[1].exists():
        link = ["ln", "-s", str(root.parents[1]), str(folder.parents[1])]
        raise RefusedError(
            f"the artifacts of the sweep were at {folder}, which is gone; if the state directory"
            f" was moved, {shlex.join(link)} leads there again"
        )


def _metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """What an evaluation has, by the names in MLflow; of an earlier version it has no usage."""
    losses = {name: evaluation[source] for name, source in SOURCES.items()}
    usage = evaluation.get("usage", {})
    return losses | {USAGE.format(name): value for name, value in usage.items()}


def _best(trials: Iterable[TrialRecord], losses: Mapping[str, float]) -> TrialRecord | None:
    """Return the trial with the lowest loss, of those that confirm winners if there are any."""
    ended = [trial for trial in trials if trial.key in losses]
    confirming = [trial for trial in ended if trial.is_confirming]
    return min(confirming or ended, key=lambda trial: losses[trial.key], default=None)


def _record_of(key: str, run: Any) -> TrialRecord:
    """A trial as its run has it, without what only an outbox knows."""
    status, reason = _ended(run)
    content = {"name": run.info.run_name, "params": run.data.params, "tags": run.data.tags}
    return TrialRecord(
        key=key,
        content=content,
        role=run.data.tags["role"],
        status=status,
        reason=reason,
        failures=0,
        hardware="",
        step=0,
        restarts=0,
        recomputed=0,
        started_ms=run.info.start_time,
        latest_ms=0,
        run_id=run.info.run_id,
        revision=0,
    )


def _ended(run: Any) -> tuple[str, str]:
    """The status of a run, and why."""
    if stopped := run.data.tags.get("stopped"):
        return "STOPPED", stopped
    return run.info.status, run.data.tags.get("failure", "")


def _shows(run: Any, record: TrialRecord) -> bool:
    """Whether name, params and role of a run are those of a trial."""
    content = record.content
    return (run.info.run_name, run.data.tags["role"]) == (content["name"], record.role) and (
        run.data.params.items() >= content["params"].items()
    )


def _batches(metrics: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """At least one, which may be empty."""
    for start in range(0, max(1, len(metrics)), size):
        yield metrics[start : start + size]
