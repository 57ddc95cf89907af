"""What happens to trials, as data: the Ray run says it, the outbox and the progress listen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# started: a worker has it. progressed: what it came to. restarted: its worker died, it goes on.
# enlarged: its share of a GPU was too small, it goes on with a larger one.
# paused: left for now, until other seeds of its configuration come as far. preempted: left for now,
# in favour of another sweep, or as its pack comes apart. stopped: left for good.
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


@dataclass(frozen=True)
class TrialEvent:
    """Something that happened to the trial of a key."""

    key: str
    kind: Kind
    step: int = 0  # where it stands
    evaluations: Sequence[dict[str, Any]] = ()  # trainables.training.loop.Evaluation, host, usage
    resumed: bool = False  # whether the step is where it goes on from
    notes: Sequence[str] = ()  # what could not be trusted
    hardware: str = ""
    reason: str = ""  # why it failed, was stopped, goes on otherwise
    time_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


Listener = Callable[[TrialEvent], None]
