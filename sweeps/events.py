"""What happens to trials, as data: the Ray run says it, tracking and progress listen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["started", "evaluated", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class TrialEvent:
    """Something that happened to the trial of a key."""

    key: str
    kind: Kind
    evaluation: dict[str, Any] = field(default_factory=dict)  # of trainables.training.Evaluation
    hardware: str = ""
    reason: str = ""  # why it failed
    time_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


Listener = Callable[[TrialEvent], None]
