"""The sweeps of a state directory: their progress, and whether a process runs them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from analysis.trials.sqlite_store import STORE, is_driven
from sweeps.deciding.further import further_trials
from sweeps.execution.changes import change
from sweeps.execution.service import sweep_names, sync_sweep
from sweeps.planning.plan import Plan
from sweeps.records.outbox_file import OUTBOX, opened_to_read
from sweeps.records.outbox_reader import read_trials
from sweeps.records.records import TRIAL
from sweeps.records.state import State
from sweeps.tracking.description import describe_trial
from trainables.config import TrialConfig
from trainables.errors import UserError


@dataclass(frozen=True)
class LocalSweep:
    """A sweep of a state directory, read from its outbox."""

    sweep: str
    status: str  # RUNNING, FINISHED, FAILED, KILLED, or ? if the outbox cannot be read
    done: int  # trials, including those that were stopped early
    total: int  # known trials; a search adds to them
    failed: int
    command: str  # continues it
    is_orphaned: bool = False  # its driver was killed, so MLflow still shows it as RUNNING

    def to_dict(self) -> dict[str, object]:
        """Return plain data, for programs."""
        return asdict(self)


def overview(state: State) -> list[LocalSweep]:
    """Return all sweeps of a state directory, sorted by name."""
    return [_read(state, name) for name in sweep_names(state)]


@dataclass(frozen=True)
class FinishedTrials:
    """The trials of a plan that a state directory has already finished, without further seeds."""

    keys: frozenset[str] = frozenset()
    in_words: str = ""  # empty if there is no such sweep

    def left(self, plan: Plan) -> list[TrialConfig]:
        """Return the trials of the grid that are not finished."""
        return [trial for trial in plan.trials if trial.key not in self.keys]

    def to_come(self, plan: Plan) -> int:
        """Return how many trials the search will still add, or 0 if no number limits it."""
        of_the_search = len(self.keys) - (len(plan.trials) - len(self.left(plan)))
        return max(0, (plan.to_come or 0) - of_the_search)


def finished_trials(plan: Plan, state: State) -> FinishedTrials:
    """Find the finished trials of a plan in the state directory, by the name of its sweep."""
    try:
        records = read_trials(state.sweep(plan.sweep.name) / OUTBOX)
    except (sqlite3.Error, ValueError):
        return FinishedTrials()
    labels = {study.label for study in plan.studies}
    now = {r.key: r.content for r in records if r.content["tags"].get("study") in labels}
    now |= {trial.key: describe_trial(plan, trial) for trial in plan.trials}
    grid = [(trial, dict[str, str]()) for trial in plan.trials]
    tagged = list(further_trials(grid, records, plan.sweep.decide is not None))
    further = {trial.key: describe_trial(plan, trial, tags) for trial, tags in tagged}
    now |= further
    found = change(records, now, plan)
    total = "?" if plan.to_come is None else len(plan.trials) + plan.to_come + len(further)
    text = f"{found.done} of {total} trials are done in {state.root}"
    keys = frozenset(
        record.key
        for record in records
        if record.is_done and record.key in now.keys() - further.keys()
    )
    if not found.go_done:
        return FinishedTrials(keys, text)
    return FinishedTrials(
        keys,
        f"{text}; {found.go_done} others with results would be retired ({found.reason}), which"
        " `sweeps run` does with --retire; or give this sweep another name with name=NAME",
    )


def settle_orphans(
    sweeps: Collection[str], state: State, uri: str, say: Callable[[str], None]
) -> None:
    """Mark the runs of sweeps whose driver was killed as KILLED in a store.

    Args:
        sweeps: names; others are left as they are.
        state: the state directory.
        uri: of the MLflow store.
        say: shows a line to the user.
    """
    for local in overview(state):
        if local.is_orphaned and local.sweep in sweeps:
            try:
                sync_sweep(local.sweep, state, uri, None, say)
                say(f"killed  {in_words(local)}")
            except UserError as error:
                say(f"stale   {local.sweep} is shown as running, which it is not: {error}")


def in_words(orphan: LocalSweep) -> str:
    """Return a line about a sweep whose driver was killed, with the command that continues it."""
    command = f" ({orphan.command})" if orphan.command else ""
    return f"the driver of {orphan.sweep} was killed; continue it by its command{command}"


def _read(state: State, name: str) -> LocalSweep:
    try:
        status, command, counts = _content(state.sweep(name) / OUTBOX)
    except (sqlite3.Error, ValueError):
        return LocalSweep(name, "?", 0, 0, 0, "")
    is_held = bool(is_driven(state.root / STORE, name))
    is_orphaned = not is_held and (status == "RUNNING" or "RUNNING" in counts)
    return LocalSweep(
        name,
        "RUNNING" if is_held else "KILLED" if is_orphaned else status,
        counts.get("FINISHED", 0) + counts.get("STOPPED", 0),
        sum(counts.values()),
        counts.get("FAILED", 0),
        command,
        is_orphaned,
    )


def _content(path: Path) -> tuple[str, str, dict[str, int]]:
    """Return the status of a sweep, its command, and the number of trials by status."""
    with opened_to_read(path) as database:
        status, content = database.execute("SELECT status, content FROM sweep").fetchone()
        counts = database.execute(
            "SELECT status, count(*) FROM trials WHERE role = ? GROUP BY status", (TRIAL,)
        )
        command = json.loads(content).get("tags", {}).get("command", "")
        return status, command, dict(counts)
