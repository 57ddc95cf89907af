"""How a trial is written as an MLflow run, and read back from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.trials.table import METRICS
from sweeps.records.events import EvaluationValues
from sweeps.records.records import TrialRecord

if TYPE_CHECKING:
    from mlflow.entities import Run

SOURCES = dict(  # names of the metrics in MLflow, to their names in an evaluation
    zip(
        METRICS,
        ("train_loss", "val_loss", "best_val_loss", "tokens_per_s", "training_s", "test_loss"),
        strict=True,
    )
)
USAGE = "system/{}"  # the page of a run shows these metrics under "System metrics"
REASONS = {"failure": "FAILED", "stopped": "STOPPED"}  # tags whose value is the reason, by status


@dataclass
class StoredRun:
    """The known state of a run in the store."""

    run_id: str
    name: str
    params: set[str]
    reasons: set[str]  # the tags of `REASONS` that it has
    has_inputs: bool
    has_artifacts: bool = False

    @staticmethod
    def of(run: Run) -> StoredRun:
        """Return what an MLflow run shows of itself."""
        return StoredRun(
            run_id=run.info.run_id,
            name=run.info.run_name,
            params=set(run.data.params),
            reasons=REASONS.keys() & run.data.tags.keys(),
            has_inputs=bool(run.inputs and run.inputs.dataset_inputs),
        )


def metrics_of(evaluation: EvaluationValues) -> dict[str, float]:
    """Return the metrics of an evaluation by their names in MLflow.

    Evaluations of an earlier version have no resource usage, and some have no training loss.
    """
    values = {name: evaluation.get(source) for name, source in SOURCES.items()}
    losses = {name: value for name, value in values.items() if value is not None}
    usage = evaluation.get("usage", {})
    return losses | {USAGE.format(name): value for name, value in usage.items()}


def outcome_of(run: Run) -> tuple[str, str]:
    """Return the status of a trial by its run, and the reason if it failed or was stopped."""
    if stopped := run.data.tags.get("stopped"):
        return "STOPPED", stopped
    return run.info.status, run.data.tags.get("failure", "")


def is_current(run: Run, record: TrialRecord) -> bool:
    """Return whether a run has ended, with the name, the params and the role of a trial."""
    content = record.content
    return (
        run.info.status in ("FINISHED", "FAILED")  # one that was stopped has its reason before
        and (run.info.run_name, run.data.tags["role"]) == (content["name"], record.role)
        and run.data.params.items() >= content["params"].items()
    )


def record_of(key: str, run: Run) -> TrialRecord:
    """Return the record of a trial that only the store knows."""
    status, reason = outcome_of(run)
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
