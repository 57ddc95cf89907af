"""A configuration that a study suggested, and how far its trials are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sweeps.planning.study_spec import SearchedArm
from trainables.config import TrialConfig


@dataclass
class Suggestion:
    """A configuration of a study, with what is known of its trials, one for each seed."""

    study: str
    number: int
    arm: SearchedArm
    trials: tuple[TrialConfig, ...]
    rungs: tuple[int, ...] = ()  # steps at which it is judged
    judged: int = 0  # the last of them so far
    losses: dict[str, dict[int, float]] = field(default_factory=dict)  # val_loss in nats, by key
    measured: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # last evaluation, by key
    ended: set[str] = field(default_factory=set)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(trial.key for trial in self.trials)

    def on_evaluation(self, key: str, evaluation: Mapping[str, Any]) -> None:
        """Take an evaluation of one of its trials; again changes nothing."""
        self.losses.setdefault(key, {})[evaluation["step"]] = evaluation["val_loss"]
        if evaluation["step"] >= self.measured.get(key, evaluation)["step"]:
            self.measured[key] = evaluation

    def waits(self, key: str) -> bool:
        """Whether a trial stands at a rung that not all seeds have reached."""
        rung = self.next_rung
        return rung is not None and rung in self.losses.get(key, {})

    @property
    def next_rung(self) -> int | None:
        return next((step for step in self.rungs if step > self.judged), None)

    def mean_at(self, step: int) -> float:
        return fmean(self.losses[key][step] for key in self.keys)

    def at_rung(self) -> int | None:
        """The next rung, once all seeds have reached it."""
        rung = self.next_rung
        if rung is None or any(rung not in self.losses.get(key, {}) for key in self.keys):
            return None
        return rung
