"""The trials that are to be trained, in order.

Deciding is not executing: `sweeps.execution.tune_runner` takes trials from here, reports what
happens to them, and asks which running trials to stop.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable

from sweeps.process.summary import counted
from sweeps.records.events import TrialEvent
from sweeps.resources.packs import Packs
from trainables.config import TrialConfig


class Queue:
    """Trials that wait and trials that run; a search adds to them as it learns."""

    # What its methods raise where what they keep cannot be written.
    storage_errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)

    def __init__(self) -> None:
        self._waiting: deque[TrialConfig] = deque()
        self._trials: dict[str, TrialConfig] = {}  # all that were ever in it, by key
        self.running: dict[str, TrialConfig] = {}  # by key

    def next(self, packs: Packs) -> list[TrialConfig]:
        """Take the next trial, and those that may train together with it.

        Returns:
            None of them while there is nothing to do but to wait for those that run.
        """
        self.fill()
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        taken = {first.key: first}
        while (room := packs.size(first) - len(taken)) > 0:
            self.fill()
            fitting = (trial for trial in self._waiting if packs.can_join(first, trial))
            joining = {trial.key: trial for trial in itertools.islice(fitting, room)}
            if not joining:
                break
            taken |= joining
            self._waiting = deque(trial for trial in self._waiting if trial.key not in joining)
        self.running |= taken
        return list(taken.values())

    @property
    def waiting(self) -> list[TrialConfig]:
        """Those that are to be trained as far as is known, in order."""
        return list(self._waiting)

    def sort(self, seconds_of: Callable[[str], float]) -> None:
        """Put the longest first: so the last ones leave the fewest places idle."""
        self._waiting = deque(sorted(self._waiting, key=lambda trial: -seconds_of(trial.key)))

    def put(self, trials: Iterable[TrialConfig]) -> None:
        """Add trials at the end, each once."""
        for trial in trials:
            if trial.key not in self._trials:
                self._trials[trial.key] = trial
                self._waiting.append(trial)

    def trial(self, key: str) -> TrialConfig:
        """A trial that is, or was, in the queue."""
        return self._trials[key]

    def demand(self, packs: Packs) -> float:
        """How many packs could run now, if there were room for all."""
        return packs.count((*self._waiting, *self.running.values()))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do, now or later."""
        return not self._waiting and not self.running

    def fill(self) -> None:
        """Have something waiting, if there is anything to do."""
        if not self._waiting:
            self.put(self.more())

    @property
    def what_comes(self) -> str:
        """How much there is to do, in words."""
        return f"{counted(len(self._waiting), 'trial')} to train"

    def requeue(self, key: str) -> None:
        """A trial that was taken is to be taken again, before the others."""
        self._waiting.appendleft(self.running.pop(key))

    def on_event(self, event: TrialEvent) -> None:
        """Take an event."""
        if event.kind in ("finished", "failed", "stopped", "paused"):
            self.running.pop(event.key, None)
        elif event.kind == "preempted":
            self.requeue(event.key)

    def pending_events(self) -> list[TrialEvent]:
        """What became of trials that do not run, since this was asked last."""
        return []

    def without_result(self) -> list[str]:
        """The labels of studies in which nothing was trained to its end."""
        return []

    def exhausted(self) -> list[str]:
        """Which studies found nothing more to suggest before the limits were reached, and why."""
        return []

    def stop_event(self, key: str) -> TrialEvent | None:
        """Whether a running trial is to be left now, as the event that this will be."""
        return None

    def more(self) -> list[TrialConfig]:
        """Further trials; none does not say that there never will be any."""
        return []
