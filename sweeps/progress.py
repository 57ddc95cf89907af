"""How far a sweep is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweeps.estimate import Cost
from sweeps.events import TrialEvent
from sweeps.plan import Plan

RUNNING_SHOWN = 8


class Progress:
    """Counts events; `shown` displays them while a sweep runs."""

    def __init__(self, plan: Plan, done_before: int, costs: Mapping[str, Cost]) -> None:
        """Start at the trials that were finished by earlier runs; costs weigh the time left."""
        self._plan = plan
        self._trials = {trial.key: trial for trial in plan.trials}
        self._costs = costs
        self._done_before = done_before
        self._started_s = time.monotonic()
        self.running: dict[str, int] = {}  # key to step
        self._console = Console()
        self.finished: set[str] = set()
        self.failed: set[str] = set()
        self.notes: dict[str, str] = {}  # what could not be trusted, by key
        self.restarts = 0  # how often a worker died
        self._best: tuple[float, str] | None = None  # val_loss in nats, and the trial's name

    def listen(self, event: TrialEvent) -> None:
        """Take an event."""
        name = self._name(event.key)
        match event.kind:
            case "started":
                self.running[event.key] = 0
            case "progressed":
                self.running[event.key] = event.step
                for evaluation in event.evaluations:
                    if self._best is None or evaluation["val_nats"] < self._best[0]:
                        self._best = (evaluation["val_nats"], name)
                for note in event.notes:
                    self.notes[event.key] = f"{name} goes on from step {event.step}: {note}"
            case "restarted":
                self.restarts += 1
            case "finished":
                self.running.pop(event.key, None)
                self.finished.add(event.key)
            case "failed":
                self.running.pop(event.key, None)
                self.failed.add(event.key)
        if not self._console.is_terminal and event.kind in ("finished", "failed"):
            said = f"failed: {event.reason}" if event.kind == "failed" else "finished"
            self._console.print(f"{self.summary()} | {name} {said}", soft_wrap=True, markup=False)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep a live table up to date on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._table, console=self._console, refresh_per_second=2):
            yield

    def summary(self) -> str:
        """One line: done, running, failed, best so far, time left."""
        done = self._done_before + len(self.finished)
        best = f"{self._best[0]:.4f} ({self._best[1]})" if self._best else "-"
        return (
            f"{done}/{len(self._plan.trials)} done, {len(self.running)} running,"
            f" {len(self.failed)} failed, best val_loss {best}, {self.time_left()} left"
        )

    def time_left(self) -> str:
        """From the cost of what is done and what is not; "?" before a first evaluation."""
        done = sum(self._costs[key].seconds for key in self.finished | self.failed)
        for key, step in self.running.items():
            done += self._costs[key].seconds * step / self._trials[key].training.max_steps
        if done == 0:
            return "?"
        left = sum(cost.seconds for cost in self._costs.values()) - done
        return duration((time.monotonic() - self._started_s) * left / done)

    def _table(self) -> Table:
        table = Table(title=self._plan.sweep.name, caption=self.summary(), min_width=60)
        table.add_column("running")
        table.add_column("step", justify="right")
        for key, step in list(self.running.items())[:RUNNING_SHOWN]:
            table.add_row(self._name(key), f"{step}/{self._trials[key].training.max_steps}")
        return table

    def _name(self, key: str) -> str:
        return self._plan.run_name(self._trials[key])


def duration(seconds: float) -> str:
    """Seconds for people, such as ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest_minutes:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"
