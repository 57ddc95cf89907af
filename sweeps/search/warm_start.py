"""What earlier trials showed, for a study to learn from."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from analysis import AnalysisError
from analysis.trials.mlflow_store import opened, runs_of
from sweeps.planning.study_spec import ARM, SearchedArm
from sweeps.records.outbox import Outbox, TrialRecord
from trainables.config import canonical
from trainables.errors import UserError

MEASURED = {"val_loss": "val_loss", "training_seconds": "training_s"}  # that studies ask for
ANOTHER_SEED = "another seed of its configuration failed"  # why a trial was stopped
ROUNDING = 1e-8  # of a number of steps
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Observation:
    """What a finished trial of some sweep showed: its key says of which configuration."""

    sweep: str
    key: str
    settings: Mapping[str, str]  # as MLflow has them
    evaluations: Sequence[Mapping[str, Any]]  # of trainables.training.loop.Evaluation
    stopped: str = ""  # why it was stopped before its end

    def is_of(self, arm: SearchedArm) -> bool:
        """Whether the model settings that an arm holds are those of the trial."""
        chosen = {path.partition(".")[2] for path in arm.space}
        held = [name for name in arm.settings["model"] if name not in chosen]
        example = arm.example.flat
        return all(canonical(example[name]) == self.settings.get(name) for name in held)


def from_outbox(outbox: Outbox, known: Container[str]) -> dict[str, Observation]:
    """What the trials of a sweep showed that were suggested by a study, by key.

    Args:
        outbox: of the sweep.
        known: keys that need not be read again.
    """
    return {
        record.key: _observed(outbox, record)
        for record in (*outbox.trials(), *outbox.removed_trials())
        if record.key not in known and record.is_suggested and record.is_done
        if not record.reason.startswith(ANOTHER_SEED)
    }


def unknown_in_outbox(outbox: Outbox, known: Container[str]) -> dict[str, Observation]:
    """The suggested trials of a sweep that the studies do not know, done or not, by key."""
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
    """What the trials of an earlier sweep showed, from its runs in MLflow, by key.

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
                if tags["key"] in known or stopped.startswith(ANOTHER_SEED):
                    continue
                history = {
                    name: {
                        one.step: one.value for one in client.get_metric_history(run.info.run_id, m)
                    }
                    for m, name in MEASURED.items()
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


class Observed:
    """Chooses what an observation shows; what no parameter can be raises `ValueError`."""

    def __init__(self, arm: SearchedArm, observation: Observation) -> None:
        self.params: dict[str, Any] = {}  # by the names of the study
        self._arm = arm.label
        self._settings = observation.settings

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name == ARM:
            return self._chosen(name, self._arm)
        text = self._text(name)
        return self._chosen(name, next((one for one in choices if canonical(one) == text), None))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return self._in_range(name, int(self._text(name)), low, high, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._in_range(name, float(self._text(name)), low, high, step)

    def _in_range(
        self, name: str, value: Number, low: Number, high: Number, step: Number | None
    ) -> Number:
        steps = (value - low) / step if step else 0.0
        if not low <= value <= high or abs(steps - round(steps)) > ROUNDING:
            raise ValueError(f"{name}={value} is not in the range")
        self.params[name] = value
        return value

    def _text(self, name: str) -> str:
        return self._settings.get(name.partition(" of ")[0], "")

    def _chosen(self, name: str, value: Any) -> Any:
        self.params[name] = value
        return value
