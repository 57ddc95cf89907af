"""What happens to trials, as data: the Ray run reports it, the outbox and the progress listen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

# started: a worker has it. progressed: what a worker reports. restarted: its worker died, another
# one continues it. enlarged: its share of a GPU was too small, it continues with a larger one.
# paused: it waits until other seeds of its configuration have come as far. preempted: it makes
# room for another sweep, or its pack is split, and it is queued again. stopped: it ends early.
Kind = Literal[
    "started",
    "progressed",
    "restarted",
    "enlarged",
    "paused",
    "preempted",
    "stopped",
    "finished",
    "failed",
]
# trainables.training.loop.Evaluation by field, with the host and the usage; as JSON in the outbox.
EvaluationValues = Mapping[str, Any]  # Any: it is computed with, and its fields are trainables' own
History = Callable[[str], Sequence[EvaluationValues]]  # the evaluations of a trial, by its key


class EndCause(StrEnum):
    """Why a trial ended before its last step; `TrialEvent.reason` says it in words."""

    DIVERGED = "diverged"  # its loss is not finite
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"  # any other exception, or its worker died too often
    PRUNED = "pruned"  # its configuration was worse than others at a rung
    SEED_FAILED = "seed_failed"  # another seed of its configuration failed


@dataclass(frozen=True)
class TrialEvent:
    """Something that happened to the trial with a key."""

    key: str
    kind: Kind
    step: int = 0  # updates so far
    evaluations: Sequence[EvaluationValues] = ()
    resumed: bool = False  # true if the trial continues from this step
    notes: Sequence[str] = ()  # files of the trial that were damaged, in words
    hardware: str = ""
    reason: str = ""  # why it failed or stopped, or continues in another way
    cause: EndCause | None = None  # of a trial that failed or stopped
    time_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


Listener = Callable[[TrialEvent], None]

SEED_FAILED_TEXT = "another seed of its configuration failed"  # begins such a reason
_BEGINNINGS = {
    SEED_FAILED_TEXT: EndCause.SEED_FAILED,
    "TrainingDivergedError": EndCause.DIVERGED,
    "MemoryError": EndCause.OUT_OF_MEMORY,
    "OutOfMemoryError": EndCause.OUT_OF_MEMORY,
    "asha:": EndCause.PRUNED,
    "median:": EndCause.PRUNED,
}


def cause_of_reason(reason: str) -> EndCause | None:
    """Read the cause of an end from its reason, where only the reason was kept.

    That is so in outboxes of earlier versions and in MLflow. Nothing else may look into a reason.
    """
    if not reason:
        return None
    found = (cause for text, cause in _BEGINNINGS.items() if reason.startswith(text))
    return next(found, EndCause.ERROR)
