"""A configuration that a study suggested, and how far its trials are."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from sweeps.planning.study_spec import SearchedArm
from sweeps.records.events import EvaluationValues
from trainables.config import TrialConfig

Tagged = tuple[TrialConfig, dict[str, str]]  # a trial with the tags of its run


@dataclass
class Suggestion:
    """A configuration of a study, with what is known of its trials, one for each seed."""

    study: str
    number: int  # of the trial in Optuna's study
    arm: SearchedArm
    trials: tuple[TrialConfig, ...]
    rungs: tuple[int, ...] = ()  # steps at which the pruner compares it
    last_rung: int = 0  # the last of them at which it was compared; 0 before the first
    losses: dict[str, dict[int, float]] = field(default_factory=dict)  # val_loss by step, by key
    latest: dict[str, EvaluationValues] = field(default_factory=dict)  # evaluation, by key
    started: set[str] = field(default_factory=set)  # keys of trials that were ever trained
    ended: set[str] = field(default_factory=set)  # keys of trials that finished or failed

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its trials, by seed."""
        return tuple(trial.key for trial in self.trials)

    def on_evaluation(self, key: str, evaluation: EvaluationValues) -> None:
        """Take an evaluation of one of its trials; a second time changes nothing."""
        self.losses.setdefault(key, {})[evaluation["step"]] = evaluation["val_loss"]
        if evaluation["step"] >= self.latest.get(key, evaluation)["step"]:
            self.latest[key] = evaluation

    def waits(self, key: str) -> bool:
        """Return whether a trial is at a rung that not all seeds have reached."""
        rung = self.next_rung
        return rung is not None and rung in self.losses.get(key, {})

    @property
    def next_rung(self) -> int | None:
        """The step at which it is compared next, or None after the last rung."""
        return next((step for step in self.rungs if step > self.last_rung), None)

    @property
    def reached_rung(self) -> int | None:
        """The next rung once all seeds have reached it, None before."""
        rung = self.next_rung
        if rung is None or any(rung not in self.losses.get(key, {}) for key in self.keys):
            return None
        return rung

    def mean_at(self, step: int) -> float:
        """Return the mean val_loss of its seeds at a step that all have reached."""
        return fmean(self.losses[key][step] for key in self.keys)

    @property
    def tags(self) -> dict[str, str]:
        """Which suggestion this is, as tags of runs."""
        return {
            "study": self.study,
            "suggestion": str(self.number),
            "arm": str(self.arm.index),
        }

    def tagged(self) -> list[Tagged]:
        """Return its trials with the tags of their runs."""
        tags = {**self.tags, "stage": "search"}
        if self.last_rung:
            tags["rung"] = str(self.last_rung)
        return [(trial, tags) for trial in self.trials]
