"""What `sweeps run` shows at its end: the ranking, what failed, and the commands that follow."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.results.ranking import DECIMALS
from analysis.text.document import in_short
from analysis.text.messages import without_password
from analysis.text.terminal import in_a_line, table
from analysis.text.terminal import try_to_say as say
from sweeps.execution.run import Outcome
from sweeps.process import signals
from sweeps.process.resuming import AGAIN, resume_command
from sweeps.records.records import TrialRecord
from sweeps.records.state import state_at
from sweeps.spec.sweep_file import SweepFile
from sweeps.tracking.views import server_address, view_link
from trainables.persistence.storage import Storage
from trainables.worker.trial_log import LOG

TOP = 10  # configurations of the ranking that are shown
WIDE = 9  # columns: a wider table leaves out those with the same value in every row
HIDDEN = ["train_loss", "best_val_loss", "training_seconds", "left_out", "run_ids"]  # columns
NUMBER = re.compile(r"-?\b(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf)\b")


@dataclass(frozen=True)
class Ending:
    """The end of a run of a sweep, as lines and as an exit code."""

    outcome: Outcome
    sweep: SweepFile
    state_root: Path
    is_retrying: bool  # run with --retry-failed

    @property
    def is_complete(self) -> bool:
        """True if every trial is finished and nothing interrupted the run."""
        return self.outcome.status == "FINISHED" and not self.outcome.stop.is_interrupted

    @property
    def exit_code(self) -> int:
        """The exit code of `sweeps run`, as its help lists them."""
        outcome = self.outcome
        if self.is_complete:
            return 1 if outcome.unsent or outcome.unranked else 0
        return signals.INTERRUPTED if outcome.stop.cause in ("interrupted", "lost") else 1

    def show(self) -> None:
        """Print everything."""
        self._show_results()
        self._show_faults()
        self._show_search()
        for line in self.outcome.claims:
            say(f"claims  {in_a_line(line)}")
        self._show_unsent()
        if self.is_complete:
            return
        stop = self.outcome.stop
        if self.outcome.status == "KILLED":
            say(f"stopped before the end: {in_a_line(stop.message or stop.cause)}")
        say(f"again   {resume_command()}{' --retry-failed' if self._needs_retry else ''}")

    def _show_results(self) -> None:
        """Print the ranking, and the commands that show more."""
        outcome = self.outcome
        if outcome.ranking is not None:
            show_ranking(outcome.ranking.head(TOP))
            for line in outcome.means:
                say(f"means   {line}")
            say(f"tables  {outcome.reports}")
        elif outcome.unranked:
            say(f"tables  there are none: {in_a_line(outcome.unranked)}")
        if not outcome.unsent:
            say(f"browse  {self._browse()}")
        if outcome.means and not outcome.claims and outcome.status != "KILLED":
            several = len(self.sweep.seeds) > 1
            question = "is that chance?" if several else "chance? One seed cannot tell"
            say(f"next    {self._command('analysis', 'conclusions')}  # {question}")

    def _show_faults(self) -> None:
        """Print what went wrong, and what it cost."""
        outcome = self.outcome
        if outcome.restarts or outcome.recomputed:
            say(
                f"faults  workers died {outcome.restarts} times; at least {outcome.recomputed}"
                " steps were taken again"
            )
        for note in outcome.notes.values():
            say(f"lost    {in_a_line(note)}")
        show_failures(outcome.failed, outcome.storage)

    def _show_search(self) -> None:
        """Print which studies ended early, and which have no result."""
        outcome = self.outcome
        for line in outcome.exhausted:
            say(f"search  {in_a_line(line)}")
        if outcome.without_result and outcome.status == "FAILED":
            say(f"search  no trial was finished in: {in_a_line('; '.join(outcome.without_result))}")

    def _show_unsent(self) -> None:
        """Print how many runs MLflow lacks, and the command that sends them."""
        outcome = self.outcome
        if outcome.unsent:
            reason = in_a_line(outcome.problem)
            say(f"unsent  {outcome.unsent} runs are not in MLflow yet, they are kept ({reason})")
            say(f"send    {os.environ.get(AGAIN) or self._command('sweeps', 'sync')}")

    @property
    def _needs_retry(self) -> bool:
        """True if all that is left are trials that failed too often to be tried again."""
        limit = self.sweep.resources.max_failures
        failed = [record for record in self.outcome.failed if not record.is_suggested]
        is_given_up = bool(failed) and all(record.failures >= limit for record in failed)
        return is_given_up and not self.is_retrying

    def _browse(self) -> str:
        """Return where the runs are shown: the address of a server, or the command for one."""
        uri, experiment_id = self.outcome.uri, self.outcome.experiment_id
        if not uri.startswith("http"):
            return self._command("sweeps", "ui")
        address = server_address(uri)
        return view_link(address, experiment_id, "ranking") if experiment_id else address

    def _command(self, program: str, command: str) -> str:
        """Return a command about this sweep, to be pasted into a shell."""
        words = [program, command, self.sweep.name]
        uri = self.outcome.uri
        if program == "analysis" and (address := os.environ.get("SWEEPS_UI_ADDRESS")):
            # A container: its own name of the server and its folders mean nothing outside.
            return shlex.join([*words, "--tracking-uri", address])
        has_password = without_password(uri) != uri  # then it comes from the environment
        if uri != state_at(self.state_root).tracking_uri and not has_password:
            words += ["--tracking-uri", uri]
        if str(self.state_root) != "state":
            words += ["--state", str(self.state_root)]
        return shlex.join(words)


def show_ranking(ranking: pd.DataFrame) -> None:
    """Print a ranking; settings that all rows share are printed above it if it is wide."""
    shown = ranking.drop(columns=HIDDEN).dropna(axis="columns", how="all")
    same = [name for name in shown if shown[name].nunique(dropna=False) == 1]
    if len(shown.columns) > WIDE and same and len(shown) > 1:
        say("all     " + ", ".join(f"{name}={shown[name].iloc[0]}" for name in same))
        shown = shown.drop(columns=same)
    columns = [
        [in_short(value, 4 if name in DECIMALS else None) for value in shown[name]]
        for name in shown
    ]
    say(table(list(shown.columns), list(zip(*columns, strict=True))))


def show_failures(failed: Sequence[TrialRecord], storage: Storage) -> None:
    """Print the failed trials, grouped by reason; reasons may differ in their numbers."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in failed:
        groups.setdefault(NUMBER.sub("#", record.reason), []).append(record)
    for records in groups.values():
        first = records[0]
        log = f"{storage.where(first.key)}/artifacts/{LOG}"
        say(f"failed  {len(records)} x {in_a_line(first.reason)}")
        say(f"        first: {in_a_line(first.content['name'])} ({first.key}), log: {log}")
