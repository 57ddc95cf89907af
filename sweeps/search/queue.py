"""The trials that are to be trained, in order.

Deciding is not executing: `sweeps.execution.tune_runner` takes trials from here, reports what
happens to them, and asks which running trials to stop. A grid fills the queue once; a search is a
`TrialSource` that adds trials as it learns.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable

from sweeps.process.summary import counted
from sweeps.records.events import TrialEvent
from sweeps.resources.packs import Packs
from trainables.config import TrialConfig


class TrialSource:
    """Suggests trials to a queue, and lets it pause, resume and stop those that it suggested.

    This one suggests nothing, as a grid alone does.
    """

    # What the methods raise if what they keep cannot be written.
    storage_errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)

    def suggest(self) -> list[TrialConfig]:
        """Return further trials to train. After an empty list, others may follow later."""
        return []

    def on_event(self, event: TrialEvent, queue: Queue) -> None:
        """Take an event that the queue has taken, and change the queue by it."""

    @property
    def stops_trials(self) -> bool:
        """True if it may stop a running trial by its evaluations."""
        return False

    @property
    def is_suggesting(self) -> bool:
        """True if it may still suggest new configurations."""
        return False

    @property
    def is_over(self) -> bool:
        """True if it will add nothing to the queue any more."""
        return True

    @property
    def remaining_in_words(self) -> str:
        """A description of what the source will suggest; empty if it suggests nothing."""
        return ""

    @property
    def progress_in_words(self) -> str:
        """How far it is, as of the last suggestion; empty if the numbers of trials say it all."""
        return ""

    def results(self) -> list[str]:
        """Return what the trials were trained to find out, a line each."""
        return []

    def without_result(self) -> list[str]:
        """Return the labels of studies in which no trial was trained to its end."""
        return []

    def exhausted(self) -> list[str]:
        """Return which studies found nothing more to suggest below their limits, and why."""
        return []


class Queue:
    """Trials that wait, run or are paused."""

    def __init__(self, source: TrialSource | None = None) -> None:
        """Begin without trials; the source, if any, is asked whenever none waits."""
        self.source = source or TrialSource()
        self._waiting: deque[TrialConfig] = deque()
        self._trials: dict[str, TrialConfig] = {}  # all that were ever in it, by key
        self.running: dict[str, TrialConfig] = {}  # by key
        self._paused: set[str] = set()  # keys
        self._stop_events: dict[str, TrialEvent] = {}  # of running trials to be stopped, by key
        self._pending: list[TrialEvent] = []  # of trials that do not run

    @property
    def storage_errors(self) -> tuple[type[Exception], ...]:
        """Exceptions that the methods raise if their state cannot be written to disk."""
        return self.source.storage_errors

    @property
    def stops_trials(self) -> bool:
        """True if a running trial may be stopped by its evaluations."""
        return self.source.stops_trials

    # What there is to train.

    def next(self, packs: Packs) -> list[TrialConfig]:
        """Take the next trial, and those that may train together with it.

        Returns:
            An empty list if there is nothing to do but to wait for running trials.
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

    def fill(self) -> None:
        """Ask the source for trials if none waits."""
        if not self._waiting:
            self.put(self.source.suggest())

    def put(self, trials: Iterable[TrialConfig]) -> None:
        """Add trials at the end, each once."""
        for trial in trials:
            if trial.key not in self._trials:
                self._trials[trial.key] = trial
                self._waiting.append(trial)

    def put_paused(self, trials: Iterable[TrialConfig]) -> None:
        """Add trials that wait until `resume` is called for them."""
        for trial in trials:
            self._trials[trial.key] = trial
            self._paused.add(trial.key)

    def requeue(self, key: str) -> None:
        """Put a running trial back, before all that wait."""
        self._waiting.appendleft(self.running.pop(key))

    def sort(self, seconds_of: Callable[[str], float]) -> None:
        """Put the longest first, so that the last trials leave the fewest places idle."""
        self._waiting = deque(sorted(self._waiting, key=lambda trial: -seconds_of(trial.key)))

    @property
    def waiting(self) -> list[TrialConfig]:
        """The trials that wait, in order."""
        return list(self._waiting)

    @property
    def size(self) -> int:
        """How many trials it has ever had."""
        return len(self._trials)

    def trial(self, key: str) -> TrialConfig:
        """Return a trial that is, or was, in the queue."""
        return self._trials[key]

    def demand(self, packs: Packs) -> float:
        """Return how many packs could run now, if there were room for all."""
        if self.source.is_suggesting:
            return math.inf
        return packs.count((*self._waiting, *self.running.values()))

    @property
    def is_over(self) -> bool:
        """True if there is nothing left to train, now or later."""
        return not self._waiting and not self.running and self.source.is_over

    @property
    def remaining_in_words(self) -> str:
        """How much there is to train, in words."""
        return self.source.remaining_in_words or f"{counted(len(self._waiting), 'trial')} to train"

    # What happens to running trials.

    def on_event(self, event: TrialEvent) -> None:
        """Take an event; what follows from it for other trials is in `pending_events`."""
        key = event.key
        if event.kind in ("finished", "failed", "stopped", "paused"):
            self.running.pop(key, None)
        elif event.kind == "preempted":
            self.requeue(key)
        if event.kind == "paused":
            self._paused.add(key)
        if key not in self.running:
            self._stop_events.pop(key, None)
        self.source.on_event(event, self)

    def stop_event(self, key: str) -> TrialEvent | None:
        """Return the event that stops or pauses a running trial, or None to let it continue."""
        return self._stop_events.get(key)

    def pending_events(self) -> list[TrialEvent]:
        """Return, once, the events of trials that were stopped while they did not run."""
        pending, self._pending = self._pending, []
        return pending

    # What the source decides.

    def pause(self, key: str) -> None:
        """Pause a running trial as soon as its worker reports."""
        self._stop_events[key] = TrialEvent(key, "paused")

    def resume(self, trials: Iterable[TrialConfig]) -> None:
        """Let trials continue: paused ones come before all that wait."""
        trials = list(trials)
        paused = [trial for trial in trials if trial.key in self._paused]
        self._paused -= {trial.key for trial in paused}
        self._waiting.extendleft(reversed(paused))
        for trial in trials:
            event = self._stop_events.get(trial.key)
            if event is not None and event.kind == "paused":
                del self._stop_events[trial.key]

    def stop(self, event: TrialEvent, has_started: bool) -> None:
        """Stop a trial for good: a running one as soon as its worker reports, others at once.

        Args:
            event: that it is stopped, and why.
            has_started: whether it was trained before; a trial that was not has no event.
        """
        key = event.key
        if key in self.running:
            self._stop_events[key] = event
            return
        if has_started:
            self._pending.append(event)
        self._waiting = deque(trial for trial in self._waiting if trial.key != key)
        self._paused.discard(key)
