"""Run a queue without Ray: trials advance in simulated time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import InitVar, dataclass, field

from sweeps.records.events import EndCause, TrialEvent
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue, TrialSource
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig

UNKNOWN = dict.fromkeys(("train_loss", "best_val_loss", "tokens_per_s"), 0.0)  # nobody asks
Curve = Mapping[int, float]  # val_loss in nats by step
Curves = Callable[[TrialConfig], Curve]  # raises what makes a trial fail


class DriverDiedError(Exception):
    """The simulated driver was killed."""


@dataclass
class Simulation:
    """Trains the trials of a queue by known curves; a paused one continues where it was."""

    source: InitVar[Queue | TrialSource]
    curves: Curves
    workers: int = 2
    packs: Packs = field(default_factory=lambda: Packs(Resources()))
    events: list[TrialEvent] = field(default_factory=list)
    steps: int = 0  # trained in all
    reached: dict[str, int] = field(default_factory=dict)  # step by key
    dies_after: int | None = None  # events
    queue: Queue = field(init=False)

    def __post_init__(self, source: Queue | TrialSource) -> None:
        self.queue = source if isinstance(source, Queue) else Queue(source)

    def run(self) -> None:
        now, idle = 0, self.workers
        busy: list[tuple[int, int, TrialConfig]] = []  # until, order, trial
        order = 0
        while True:
            while idle and (taken := self.queue.next(self.packs)):
                (trial,) = taken
                self._tell(TrialEvent(trial.key, "started"))
                if self._report(trial, range(self.reached.get(trial.key, 0) + 1)):
                    continue
                order += 1
                heapq.heappush(busy, (now + trial.training.eval_every, order, trial))
                idle -= 1
            if not busy:
                assert self.queue.is_over
                return
            now, _, trial = heapq.heappop(busy)
            if self._advance(trial):
                order += 1
                heapq.heappush(busy, (now + trial.training.eval_every, order, trial))
            else:
                idle += 1

    def _advance(self, trial: TrialConfig) -> bool:
        """Train to the next evaluation; return whether the trial continues."""
        key = trial.key
        step = min(self.reached.get(key, 0) + trial.training.eval_every, trial.training.max_steps)
        try:
            self.curves(trial)
        except ArithmeticError as error:
            self._tell(
                TrialEvent(
                    key, "failed", reason=f"TrainingDivergedError: {error}", cause=EndCause.DIVERGED
                )
            )
            return False
        except MemoryError as error:
            self._tell(
                TrialEvent(
                    key, "failed", reason=f"MemoryError: {error}", cause=EndCause.OUT_OF_MEMORY
                )
            )
            return False
        self.steps += step - self.reached.get(key, 0)
        self.reached[key] = step
        return not self._report(trial, [step])

    def _report(self, trial: TrialConfig, steps: Iterable[int]) -> bool:
        """Report evaluations of a trial; return whether it is stopped or finished."""
        key, reached = trial.key, self.reached.get(trial.key, 0)
        curve = self.curves(trial) if reached else {}
        evaluations = [
            {"step": step, "val_loss": curve[step], "training_s": float(step), **UNKNOWN}
            for step in steps
            if step in curve
        ]
        if evaluations:
            self._tell(TrialEvent(key, "progressed", step=reached, evaluations=evaluations))
        if stop := self.queue.stop_event(key):
            self._tell(stop)
        elif reached == trial.training.max_steps:
            self._tell(TrialEvent(key, "finished"))
        return stop is not None or reached == trial.training.max_steps

    def _tell(self, event: TrialEvent) -> None:
        self.events.append(event)
        if self.dies_after is not None and len(self.events) >= self.dies_after:
            raise DriverDiedError
        self.queue.on_event(event)
        for follows in self.queue.pending_events():
            self._tell(follows)

    def keys(self, kind: str) -> list[str]:
        return [event.key for event in self.events if event.kind == kind]
