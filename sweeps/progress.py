"""How far a sweep is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from analysis.terminal import in_a_line, printable, try_to_say
from sweeps.estimate import Estimate
from sweeps.events import TrialEvent
from sweeps.plan import Plan
from sweeps.queue import Queue
from sweeps.summary import Summary, duration
from trainables.config import TrialConfig

RUNNING_SHOWN = 8
QUIET_S = 60.0  # where no table is shown: how long nothing is said at most, while trials train


@dataclass(frozen=True)
class Before:
    """What earlier runs of a sweep did."""

    done: int = 0  # trials, those included that were stopped early
    stopped: int = 0
    best: tuple[float, str] | None = None  # val_loss in nats, and the trial's name


class Progress:
    """Counts events; `shown` displays them while a sweep runs."""

    def __init__(
        self, plan: Plan, queue: Queue, cost: Estimate, total: int | None, before: Before
    ) -> None:
        """Start at what earlier runs did.

        Args:
            plan: names the trials.
            queue: has them.
            cost: of the trials of this run, to weigh the time left.
            total: how many trials the sweep will have; None where nobody knows.
            before: what of them is done.
        """
        self._plan, self._queue, self._cost = plan, queue, cost
        self._total, self._before = total, before
        self._trials: dict[str, TrialConfig] = {}  # those that ran, by key
        self._started_s = self._printed_s = time.monotonic()
        self.running: dict[str, int] = {}  # key to step
        self._console = Console(markup=False, emoji=False, highlight=False)
        self.finished: set[str] = set()
        self.failed: set[str] = set()
        self.stopped: set[str] = set()
        self.notes: dict[str, str] = {}  # what could not be trusted, by key
        self.restarts = 0  # how often a worker died
        self._best = before.best

    def listen(self, event: TrialEvent) -> None:
        """Take an event, before the queue does."""
        trial = self._trials.setdefault(event.key, self._queue.trial(event.key))
        name = self._plan.run_name(trial)
        match event.kind:
            case "started":
                self.running[event.key] = 0
            case "progressed":
                self.running[event.key] = event.step
                for evaluation in event.evaluations:
                    if self._best is None or evaluation["val_nats"] < self._best[0]:
                        self._best = (evaluation["val_nats"], name)
                if time.monotonic() - self._printed_s > QUIET_S:
                    self._print(f"{name} at step {event.step}")
                for note in event.notes:
                    self.notes[event.key] = f"{name} goes on from step {event.step}: {note}"
            case "restarted":
                self.restarts += 1
            case "enlarged" | "yielded" if event.reason:
                self.running.pop(event.key, None)
                try_to_say(in_a_line(f"{name} {event.reason}"))
            case "parked" | "yielded" | "finished" | "failed" | "stopped":
                self.running.pop(event.key, None)
                ended = {"finished": self.finished, "failed": self.failed, "stopped": self.stopped}
                if event.kind in ended:
                    ended[event.kind].add(event.key)
                    self._print(f"{name} {event.kind}{f': {event.reason}' if event.reason else ''}")

    def _print(self, said: str) -> None:
        if not self._console.is_terminal:
            self._printed_s = time.monotonic()
            try_to_say(in_a_line(f"{self.summary()} | {said}"))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep a live table up to date on a terminal."""
        if not self._console.is_terminal:
            self._print("started")
            yield
            return
        live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
        live.start()
        try:
            yield
        finally:
            with suppress(OSError):  # the terminal is closed
                live.stop()

    def summary(self) -> Summary:
        """Done, running, failed, best so far, time left."""
        best, name = self._best or (None, "")
        return Summary(
            done=self._before.done + len(self.finished | self.stopped),
            total=self._total,
            stopped=self._before.stopped + len(self.stopped),
            running=len(self.running),
            failed=len(self.failed),
            best=best,
            best_trial=name,
            left=self.time_left(),
        )

    def time_left(self) -> str:
        """From the cost of what is done and what is not; "?" where nobody knows."""
        done = sum(map(self._cost.of, self.finished | self.failed | self.stopped))
        for key, step in self.running.items():
            done += self._cost.of(key) * step / self._trials[key].training.max_steps
        if done == 0 or self._total is None:
            return "?"
        left = max(0.0, self._cost.work_s - done)
        return duration((time.monotonic() - self._started_s) * left / done)

    def _table(self) -> Table:
        title, caption = printable(self._plan.sweep.name), printable(self.summary())
        table = Table(title=title, caption=caption, min_width=60)
        table.add_column("running", overflow="fold")
        table.add_column("step", justify="right")
        for key, step in list(self.running.items())[:RUNNING_SHOWN]:
            trial = self._trials[key]
            name = printable(self._plan.run_name(trial))
            table.add_row(name, f"{step}/{trial.training.max_steps}")
        return table
