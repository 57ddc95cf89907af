"""Every trial is one MLflow run, written by the driver alone, from a thread that training never
waits for."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import queue
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs import first_line, runs_of
from sweeps.events import TrialEvent
from sweeps.plan import Plan
from sweeps.views import saved_views
from trainables.artifacts import SAMPLE
from trainables.config import TrialConfig, trial_folder
from trainables.errors import UserError

logger = logging.getLogger(__name__)

GATHER_S = 0.3  # events that come within this time travel together
RETRY_S = 5.0
CLOSE_S = 60.0  # how long the end of a sweep waits for its tracking store
RANKING_TABLE = "ranking.json"
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
METRICS = {  # MLflow's name and ours
    "train_loss": "train_nats",
    "val_loss": "val_nats",
    "best_val_loss": "best_val_nats",
    "tokens_per_second": "tokens_per_s",
    "training_seconds": "training_s",
}


class Tracker:
    """The runs of a sweep: one parent for its tables, one child for each trial key.

    `listen` only puts an event into a queue. A thread sends what came together in one batch for
    each run, and sends again what the store did not take.
    """

    def __init__(self, client: Any, plan: Plan, artifact_root: Path | None, folder: Path) -> None:
        """Open the sweep's experiment, made if need be, and find the runs that it has.

        Args:
            client: from `mlflow_client`.
            plan: the sweep and its trials.
            artifact_root: where a new experiment keeps artifacts; None leaves it to the server.
            folder: where the trials keep their state.
        """
        self._client = client
        self._plan = plan
        self._folder = folder
        self._trials = {trial.key: trial for trial in plan.trials}
        self.experiment_id = self._open_experiment(artifact_root)
        self._run_ids: dict[str, str] = {}
        self._code_version = code_version()
        self._reopen: set[str] = set()  # keys whose run was left unfinished by an earlier driver
        self.finished_keys: set[str] = set()
        for run in runs_of(client, self.experiment_id, "trial"):
            key = run.data.tags.get("key")
            self._run_ids[key] = run.info.run_id
            if run.info.status == "FINISHED":
                self.finished_keys.add(key)
            else:
                self._reopen.add(key)
        self.parent_id = self._open_parent()
        self._evaluations: dict[str, dict[str, Any]] = {}  # the last one of each trial
        self._described: set[str] = set()  # keys whose run has its params
        self._pending: dict[str, list[TrialEvent]] = defaultdict(list)
        self._give_up_s = math.inf  # on the monotonic clock, once closed
        self._queue: queue.SimpleQueue[TrialEvent | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="tracking", daemon=True)
        self._thread.start()

    def listen(self, event: TrialEvent) -> None:
        """Take an event; returns at once."""
        self._queue.put(event)

    def close(self) -> int:
        """Wait until the store has all events.

        Returns:
            How many trials have events that the store did not take within a minute.
        """
        self._queue.put(None)
        self._thread.join()
        return len(self._pending)

    def finish(self, status: str, ranking: pd.DataFrame | None, reports: Path) -> None:
        """End the parent run: its status, the ranking as a table of the UI, a folder of reports."""
        if ranking is not None:
            self._client.log_table(self.parent_id, data=ranking, artifact_file=RANKING_TABLE)
            # log_table appends to the table of an earlier run of the sweep: replace the whole.
            content = ranking.to_json(orient="split", index=False)
            self._client.log_text(self.parent_id, content, RANKING_TABLE)
            self._client.log_artifacts(self.parent_id, str(reports))
        self._client.set_terminated(self.parent_id, status)

    def _open_experiment(self, artifact_root: Path | None) -> str:
        name = self._plan.sweep.name
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_root.as_uri() if artifact_root else None
            experiment_id: str = self._client.create_experiment(name, artifact_location=location)
        elif experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"the MLflow experiment {name!r} is deleted; restore it, or give the"
                " sweep another name"
            )
        else:
            experiment_id = experiment.experiment_id
        params = [name for name in self._plan.varying if name != "variant"]
        group_by = next((name for name in params if self._is_factor(name)), None)
        views = saved_views(params or ["variant"], group_by, sweep=name)
        for tag, value in views.items():
            self._client.set_experiment_tag(experiment_id, tag, value)
        return experiment_id

    def _is_factor(self, name: str) -> bool:
        """Whether a setting has words for values, such as pe_type."""
        return any(isinstance(trial.flat.get(name), str) for trial in self._plan.trials)

    def _open_parent(self) -> str:
        sweep = self._plan.sweep
        for run in runs_of(self._client, self.experiment_id, "sweep"):
            self._client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        tags = {"role": "sweep", "sweep": sweep.name, "mlflow.note.content": sweep.description}
        run = self._client.create_run(self.experiment_id, tags=tags, run_name=f"sweep {sweep.name}")
        return str(run.info.run_id)

    def _send_all(self) -> None:
        """Send until closed; what the store does not take stays pending and is sent again."""
        from mlflow.exceptions import MlflowException

        while self._pending or self._give_up_s == math.inf:
            self._receive()
            try:
                for key in list(self._pending):
                    self._send(self._trials[key], self._pending[key])
                    del self._pending[key]
            except (MlflowException, OSError) as error:
                logger.warning("MLflow took no events, trying again: %s", first_line(error))
                if time.monotonic() > self._give_up_s:
                    return

    def _receive(self) -> None:
        """Wait for events, then for those that come soon after, and sort them by trial."""
        events = [] if self._pending else [self._queue.get()]
        time.sleep(RETRY_S if self._pending else GATHER_S)
        while not self._queue.empty():
            events.append(self._queue.get())
        for event in events:
            if event is None:
                self._give_up_s = time.monotonic() + CLOSE_S
            else:
                self._pending[event.key].append(event)

    def _send(self, trial: TrialConfig, events: Sequence[TrialEvent]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id = self._run_ids.get(trial.key) or self._create(trial)
        params = {} if trial.key in self._described else trial.flat
        evaluated = [event for event in events if event.kind == "evaluated"]
        metrics = [
            Metric(name, event.evaluation[source], event.time_ms, event.evaluation["step"])
            for event in evaluated
            for name, source in METRICS.items()
        ]
        if evaluated:
            self._evaluations[trial.key] = evaluated[-1].evaluation
        last = events[-1]
        tags = {"hardware": evaluated[-1].hardware} if evaluated else {}
        if last.kind in STATUSES:
            tags["mlflow.note.content"] = self._note(trial, last)
        if last.kind == "failed" or trial.key in self._reopen:
            tags["failure"] = last.reason
        self._client.log_batch(
            run_id,
            metrics,
            [Param(name, canonical(value)) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        )
        self._described.add(trial.key)
        if last.kind == "finished":
            self._client.log_artifacts(run_id, str(self._artifacts(trial)))
        if last.kind in STATUSES:
            self._client.set_terminated(run_id, STATUSES[last.kind], last.time_ms)
        elif trial.key in self._reopen:
            self._client.update_run(run_id, status="RUNNING")
            self._reopen.discard(trial.key)

    def _create(self, trial: TrialConfig) -> str:
        from mlflow.entities import Dataset, DatasetInput

        tags = {
            "role": "trial",
            "sweep": self._plan.sweep.name,
            "key": trial.key,
            "variant": trial.model.variant,
            "seed": str(trial.seed),
            "corpus_digest": trial.corpus_digest,
            "code_version": self._code_version,
            "mlflow.parentRunId": self.parent_id,
        }
        name = self._plan.run_name(trial)
        run = self._client.create_run(self.experiment_id, tags=tags, run_name=name)
        run_id: str = run.info.run_id
        self._run_ids[trial.key] = run_id
        corpus = self._plan.corpus
        profile = {
            "vocabulary": corpus.vocab_size,
            "train_tokens": len(corpus.train),
            "validation_tokens": len(corpus.validation),
        }
        dataset = Dataset(
            corpus.name,
            corpus.digest[:36],
            "text",
            json.dumps({"corpus": corpus.name}),
            profile=json.dumps(profile),
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset)])
        return run_id

    def _artifacts(self, trial: TrialConfig) -> Path:
        return trial_folder(self._folder, trial.key) / "artifacts"

    def _note(self, trial: TrialConfig, last: TrialEvent) -> str:
        """A run page's Markdown: the outcome, the settings and some text."""
        evaluation = self._evaluations.get(trial.key)
        lines = [f"**{self._plan.run_name(trial)}** of sweep `{self._plan.sweep.name}`", ""]
        if last.kind == "failed":
            lines += [f"Failed: {last.reason}", ""]
        elif evaluation:
            lines += [
                f"Validation loss **{evaluation['val_nats']:.5f}** nats per character"
                f" (training {evaluation['train_nats']:.5f}) after {evaluation['step']} steps.",
                "",
            ]
        lines += ["| setting | value |", "|---|---|"]
        lines += [f"| {name} | {canonical(value)} |" for name, value in trial.flat.items()]
        if last.kind == "finished":
            sample = (self._artifacts(trial) / SAMPLE).read_text(encoding="utf-8")
            lines += [
                "",
                "Text that it writes:",
                "",
                *(f"    {line}" for line in sample.split("\n")),
            ]
        return "\n".join(lines)


def canonical(value: Any) -> str:
    """One spelling for each value: MLflow refuses to log 0.001 where it has 1e-3."""
    return repr(value) if isinstance(value, float) else str(value)


def code_version() -> str:
    """The installed version, and the commit where the code is a git checkout."""
    version = importlib.metadata.version("bigram-sweeps")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return version
    return f"{version}+{described.stdout.strip()}" if described.returncode == 0 else version
