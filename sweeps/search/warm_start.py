"""What earlier trials showed, for a study to learn from: read from an outbox or from MLflow."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from analysis import AnalysisError
from analysis.trials.mlflow_store import opened, runs_of
from sweeps.planning.study_spec import SearchedArm
from sweeps.records.events import EndCause, EvaluationValues, cause_of_reason
from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from trainables.config import canonical
from trainables.errors import UserError

# Fields of evaluations, by the objectives and metrics in MLflow that they are.
MEASURED = {"val_loss": "val_loss", "training_seconds": "training_s"}


@dataclass(frozen=True)
class Observation:
    """Settings and evaluations of a finished trial; its key identifies the configuration."""

    sweep: str
    key: str
    settings: Mapping[str, str]  # params of its run in MLflow
    evaluations: Sequence[EvaluationValues]
    stopped: str = ""  # why it was pruned; empty if it was trained to its last step

    def is_of(self, arm: SearchedArm) -> bool:
        """Return whether the trial has the model settings that an arm holds fixed."""
        chosen = {path.partition(".")[2] for path in arm.space}
        fixed = [name for name in arm.settings["model"] if name not in chosen]
        example = arm.example.flat
        return all(canonical(example[name]) == self.settings.get(name) for name in fixed)


def from_outbox(outbox: Outbox, known: Container[str]) -> dict[str, Observation]:
    """Read the suggested trials of a sweep that finished or were pruned, by key.

    Args:
        outbox: of the sweep.
        known: keys that need not be read again.
    """
    return {
        record.key: _observed(outbox, record)
        for record in (*outbox.trials(), *outbox.removed_trials())
        if record.key not in known and record.is_suggested and record.is_done
        if record.cause != EndCause.SEED_FAILED
    }


def unknown_in_outbox(outbox: Outbox, known: Container[str]) -> dict[str, Observation]:
    """Read the suggested trials of a sweep that the studies do not know, done or not, by key."""
    return {
        record.key: _observed(outbox, record)
        for record in outbox.trials()
        if record.key not in known and record.is_suggested
    }


def _observed(outbox: Outbox, record: TrialRecord) -> Observation:
    evaluations = [evaluation for _, evaluation in outbox.evaluations(record.key)]
    settings = record.content["params"]
    return Observation(outbox.sweep.name, record.key, settings, evaluations, record.reason)


def from_store(uri: str, sweep: str, known: Container[str]) -> dict[str, Observation]:
    """Read the trials of an earlier sweep from its runs in MLflow, by key.

    Args:
        uri: of the store.
        sweep: its name.
        known: keys that need not be read again: each takes some requests.

    Raises:
        UserError: the store does not answer, or has no such sweep.
    """
    found = {}
    try:
        with opened(uri, sweep) as (client, experiment_id):
            for run in runs_of(client, experiment_id, "trial"):
                tags = run.data.tags
                stopped = tags.get("stopped", "")
                if run.info.status != "FINISHED" or tags.get("stage") == "confirm":
                    continue
                if tags["key"] in known or cause_of_reason(stopped) == EndCause.SEED_FAILED:
                    continue
                history = {
                    name: {
                        point.step: point.value
                        for point in client.get_metric_history(run.info.run_id, metric)
                    }
                    for metric, name in MEASURED.items()
                }
                evaluations = [
                    {"step": step, **{name: values[step] for name, values in history.items()}}
                    for step in sorted(history["val_loss"])
                ]
                found[tags["key"]] = Observation(
                    sweep, tags["key"], run.data.params, evaluations, stopped
                )
    except AnalysisError as error:
        raise UserError(f"search.warm_start: {error}") from None
    return found
