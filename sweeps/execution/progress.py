"""How far a sweep is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.text.terminal import in_a_line, printable, try_to_say
from sweeps.planning.estimate import Estimate
from sweeps.planning.plan import Plan
from sweeps.process.summary import WANTS_JSON, Summary, duration
from sweeps.records.events import TrialEvent
from sweeps.search.queue import Queue
from trainables.config import TrialConfig

RUNNING_SHOWN = 8
BAR_WIDTH = 40
QUIET_S = 60.0  # the longest time without a line while trials train, if no table is shown


@dataclass(frozen=True)
class Before:
    """Progress that earlier runs of a sweep made."""

    done: int = 0  # trials that finished or were stopped early
    stopped: int = 0  # of these
    best: tuple[float, str] | None = None  # lowest val_loss, and the name of its trial


class Progress:
    """Counts events; `shown` displays them while a sweep runs."""

    def __init__(
        self,
        plan: Plan,
        queue: Queue,
        cost: Estimate,
        total: int | None,
        before: Before,
        remaining_in_words: str,
    ) -> None:
        """Begin to count where earlier runs ended.

        Args:
            plan: of the sweep; gives trials their names.
            queue: has the trials of this run.
            cost: estimate of the trials of this run, by which the time left is reckoned.
            total: how many trials the sweep will have, or None if unknown.
            before: what earlier runs did.
            remaining_in_words: what this run does, as "60 suggestions in 1 study, 2 at once".
        """
        self._plan, self._queue, self._cost = plan, queue, cost
        self._total, self._before, self._remaining_in_words = total, before, remaining_in_words
        self._trials: dict[str, TrialConfig] = {}  # those that ran, by key
        self._started_s = self._printed_s = time.monotonic()
        self.running: dict[str, int] = {}  # step by key
        self._losses: dict[str, float] = {}  # last val_loss of running trials, by key
        self._last = ""  # the trial that ended last, and how
        self._has_trained = False
        self._console = Console(markup=False, emoji=False, highlight=False)
        self.finished: set[str] = set()
        self.failed: set[str] = set()
        self.stopped: set[str] = set()
        self.notes: dict[str, str] = {}  # files that were damaged, by key
        self.restarts = 0  # how often a worker died
        self._best = before.best
        self._source_words = queue.source.progress_in_words

    def on_event(self, event: TrialEvent) -> None:
        """Take an event, before the queue does."""
        self._show_source()
        trial = self._trials.setdefault(event.key, self._queue.trial(event.key))
        name = self._plan.names.run_name(trial)
        match event.kind:
            case "started":
                self.running[event.key] = 0
                if not self._has_trained:
                    self._has_trained = True
                    self._print("training")
            case "progressed":
                self.running[event.key] = event.step
                for evaluation in event.evaluations:
                    self._losses[event.key] = evaluation["val_loss"]
                    if self._best is None or evaluation["val_loss"] < self._best[0]:
                        self._best = (evaluation["val_loss"], name)
                if time.monotonic() - self._printed_s > QUIET_S:
                    self._print(f"{name} at step {event.step}{self._loss(event.key)}")
                for note in event.notes:
                    self.notes[event.key] = f"{name} goes on from step {event.step}: {note}"
            case "restarted":
                self.restarts += 1
            case "enlarged" | "preempted" if event.reason:
                self.running.pop(event.key, None)
                try_to_say(in_a_line(f"{name} {event.reason}"))
            case "paused" | "preempted" | "finished" | "failed" | "stopped":
                self.running.pop(event.key, None)
                ended = {"finished": self.finished, "failed": self.failed, "stopped": self.stopped}
                if event.kind in ended:
                    ended[event.kind].add(event.key)
                    reason = f": {event.reason}" if event.reason else ""
                    self._last = f"{name} {event.kind}{self._loss(event.key)}{reason}"
                    self._print(f"{name} {event.kind}{reason}")

    def _show_source(self) -> None:
        """Print how far the source of trials is, if that has changed."""
        words = self._queue.source.progress_in_words
        if words != self._source_words and not self._console.is_terminal:
            try_to_say(in_a_line(f"claims  {words}"))
        self._source_words = words

    def _loss(self, key: str) -> str:
        return f", val_loss {self._losses[key]:.4f}" if key in self._losses else ""

    def _print(self, text: str) -> None:
        if not self._console.is_terminal:
            self._printed_s = time.monotonic()
            summary = self.summary()
            try_to_say(in_a_line(f"{summary} | {text}"))
            if WANTS_JSON in os.environ:
                try_to_say(summary.to_json())

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep a live table up to date on a terminal."""
        if not self._console.is_terminal:
            self._print(f"starting workers: {self._remaining_in_words}")
            yield
            return
        live = Live(get_renderable=self._view, console=self._console, refresh_per_second=2)
        live.start()
        try:
            yield
        finally:
            with suppress(OSError):  # the terminal is closed
                live.stop()

    def summary(self) -> Summary:
        """Return how many trials are done, run and failed, the best loss and the times."""
        best, name = self._best or (None, "")
        return Summary(
            done=self._before.done + len(self.finished | self.stopped),
            total=self._known_total(),
            stopped=self._before.stopped + len(self.stopped),
            running=len(self.running),
            failed=len(self.failed),
            best=best,
            best_trial=name,
            left=self.time_left(),
            elapsed=duration(time.monotonic() - self._started_s),
        )

    def _known_total(self) -> int | None:
        """Return how many trials the sweep will have; while it decides claims, those so far."""
        if self._total is None and self._plan.sweep.decide and not self._plan.studies:
            return self._before.done + self._queue.size
        return self._total

    def time_left(self) -> str:
        """Return the time left by the cost of what is done and what is not; "?" if unknown."""
        done_s, elapsed_s = self._done_s(), time.monotonic() - self._started_s
        if done_s == 0 or self._total is None:
            return "?"
        return duration(elapsed_s * max(0.0, self._cost.work_s - done_s) / done_s)

    def _done_s(self) -> float:
        """Return the work of this run so far, in seconds of its estimate."""
        done_s = sum(map(self._cost.of, self.finished | self.failed | self.stopped))
        for key, step in self.running.items():
            done_s += self._cost.of(key) * step / self._trials[key].training.max_steps
        return done_s

    def _view(self) -> Group:
        """Return the live table, under a bar that shows how much of this run's work is done."""
        title = Text(printable(f"{self._plan.sweep.name}: {self._remaining_in_words}"))
        share = min(1.0, self._done_s() / self._cost.work_s) if self._cost.work_s else 0.0
        is_known = self._total is not None and self._has_trained
        bar = Table.grid(padding=(0, 1))  # a bar alone does not end its line
        bar.add_row(
            ProgressBar(1.0, share, width=BAR_WIDTH, pulse=not is_known),
            f"{share:.0%}" if is_known else "",
        )
        table = Table(caption=printable(self.summary()), min_width=60)
        table.add_column("running", overflow="fold")
        table.add_column("step", justify="right")
        table.add_column("val_loss", justify="right", min_width=8)
        for key, step in list(self.running.items())[:RUNNING_SHOWN]:
            trial = self._trials[key]
            loss = f"{self._losses[key]:.4f}" if key in self._losses else ""
            name = printable(self._plan.names.run_name(trial))
            table.add_row(name, f"{step}/{trial.training.max_steps}", loss)
        if len(self.running) > RUNNING_SHOWN:
            table.add_row(f"and {len(self.running) - RUNNING_SHOWN} more", "", "")
        if not self._has_trained:
            table.add_row("workers are being started", "", "")
        last = [Text(printable(f"last: {self._last}"))] if self._last else []
        source = [Text(printable(self._source_words))] if self._source_words else []
        return Group(title, *source, bar, table, *last)
