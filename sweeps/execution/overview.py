"""The sweeps of a state directory: how far they are, and whether a process runs them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.trials.sqlite_store import STORE, is_driven
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
    """A sweep as its outbox has it."""

    sweep: str
    status: str  # RUNNING, FINISHED, FAILED, KILLED, or ? where the outbox cannot be read
    done: int  # trials, those that were stopped early among them
    total: int  # trials that are known; a search adds to them
    failed: int
    command: str  # lets it go on
    is_orphaned: bool = False  # its driver was killed, so that MLflow still calls it RUNNING

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for programs."""
        return asdict(self)


def overview(state: State) -> list[LocalSweep]:
    """All sweeps that were run in a state directory, by name."""
    return [_read(state, name) for name in sweep_names(state)]


@dataclass(frozen=True)
class Done:
    """The trials of a plan that a state directory has already."""

    keys: frozenset[str] = frozenset()
    in_words: str = ""  # empty where there is no such sweep

    def left(self, plan: Plan) -> list[TrialConfig]:
        """Return the trials of the grid that are not done."""
        return [trial for trial in plan.trials if trial.key not in self.keys]

    def to_come(self, plan: Plan) -> int:
        """Return how many trials the search has still to add, or 0 if it has no limit in trials."""
        of_the_search = len(self.keys) - (len(plan.trials) - len(self.left(plan)))
        return max(0, (plan.to_come or 0) - of_the_search)


def done_of(plan: Plan, state: State) -> Done:
    """Look for the trials of a plan in the state directory, by the name of its sweep."""
    try:
        records = read_trials(state.sweep(plan.sweep.name) / OUTBOX)
    except (sqlite3.Error, ValueError):
        return Done()
    labels = {cell.label for cell in plan.studies}
    now = {r.key: r.content for r in records if r.content["tags"].get("study") in labels}
    now |= {trial.key: describe_trial(plan, trial) for trial in plan.trials}
    found = change(records, now, plan)
    total = "?" if plan.to_come is None else len(plan.trials) + plan.to_come
    said = f"{found.done} of {total} trials are done in {state.root}"
    keys = frozenset(record.key for record in records if record.is_done and record.key in now)
    if not found.go_done:
        return Done(keys, said)
    return Done(
        keys,
        f"{said}; {found.go_done} others with results would be retired ({found.why}), which"
        " `sweeps run` does with --retire; or give this sweep another name with name=NAME",
    )


def settle_orphans(
    sweeps: Collection[str], state: State, uri: str, say: Callable[[str], None]
) -> None:
    """Say in a store that nothing runs any more of the sweeps whose driver was killed."""
    for found in overview(state):
        if found.is_orphaned and found.sweep in sweeps:
            try:
                sync_sweep(found.sweep, state, uri, None, say)
                say(f"killed  {in_words(found)}")
            except UserError as error:
                say(f"stale   {found.sweep} is shown as running, which it is not: {error}")


def in_words(orphan: LocalSweep) -> str:
    """What became of a sweep whose driver was killed, and how it goes on."""
    again = f" ({orphan.command})" if orphan.command else ""
    return f"the driver of {orphan.sweep} ended without a word; it goes on by its command{again}"


def _read(state: State, name: str) -> LocalSweep:
    try:
        status, content, counts = _content(state.sweep(name) / OUTBOX)
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
        content.get("tags", {}).get("command", ""),
        is_orphaned,
    )


def _content(path: Path) -> tuple[str, dict[str, Any], dict[str, int]]:
    """The status of a sweep, what describes it, and how many trials are in which status."""
    with opened_to_read(path) as database:
        status, content = database.execute("SELECT status, content FROM sweep").fetchone()
        counts = database.execute(
            "SELECT status, count(*) FROM trials WHERE role = ? GROUP BY status", (TRIAL,)
        )
        return status, json.loads(content), dict(counts)
