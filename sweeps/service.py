"""Bringing about what a sweep file describes: plan, train, track, rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import load_trials, tables, write_tables
from sweeps.estimate import estimate
from sweeps.events import TrialEvent
from sweeps.plan import Plan, expand, override
from sweeps.progress import Progress
from sweeps.resources import check_address, concurrency, local_node
from sweeps.spec import load_sweep
from sweeps.state import State, make_writable
from trainables.config import TrialConfig
from trainables.corpus import load_corpus

if TYPE_CHECKING:
    from sweeps.tracking import Tracker


@dataclass(frozen=True)
class Outcome:
    """What a run of a sweep came to."""

    status: str  # FINISHED: all trials are; FAILED: some failed; KILLED: interrupted
    failures: dict[str, str]  # trial key to reason
    unsent: int  # trials with events that the tracking store did not take
    ranking: pd.DataFrame | None  # None when no trial is finished
    reports: Path


def make_plan(name_or_path: str, overrides: Sequence[str], state: State) -> Plan:
    """Read a sweep file or preset, apply overrides, load its corpus and check every trial.

    Raises:
        UserError: anything in it cannot be.
    """
    sweep, source = load_sweep(name_or_path)
    sweep = override(sweep, overrides)
    return expand(sweep, load_corpus(sweep.corpus, state.corpora), source)


def run_sweep(
    plan: Plan,
    state: State,
    tracking_uri: str | None,
    address: str | None,
    say: Callable[[str], None],
) -> Outcome:
    """Train every trial that is not finished yet, and rank all of them.

    Args:
        plan: from `make_plan`.
        state: where everything is written.
        tracking_uri: of an MLflow store other than the one in the state directory.
        address: of a Ray cluster; None starts Ray on this machine.
        say: shows a line to the user.

    Raises:
        UserError: the state directory, the store or the resources do not permit a run.
    """
    if address is None:
        concurrency(plan.sweep.resources, [local_node()])
    else:
        check_address(address)
    make_writable(state)
    # MLflow is imported late: neither `--help` nor a refused sweep file waits for it.
    from sweeps.store import mlflow_client
    from sweeps.tracking import Tracker

    name = plan.sweep.name
    uri = tracking_uri or plan.sweep.tracking.uri or state.tracking_uri
    artifacts = state.artifacts(name) if uri == state.tracking_uri else None
    tracker = Tracker(mlflow_client(uri), plan, artifacts, state.sweep(name))
    done = len({trial.key for trial in plan.trials} & tracker.finished_keys)
    to_run = [trial for trial in plan.trials if trial.key not in tracker.finished_keys]
    say(f"{name}: {done} done, {len(to_run)} to run")
    failures: dict[str, str] = {}
    status, ranking = "KILLED", None
    try:
        if to_run:
            progress = _train(plan, to_run, state, address, tracker)
            failures = progress.failures
            done += len(progress.finished)
        if done == len(plan.trials):
            status = "FINISHED"
        elif done + len(failures) == len(plan.trials):
            status = "FAILED"
    finally:
        unsent = tracker.close()
        if done and not unsent:
            keys = {trial.key for trial in plan.trials}
            named = tables(load_trials(name, uri).only(keys))
            write_tables(named, state.reports(name))
            ranking = named["ranking"]
        tracker.finish(status, ranking, state.reports(name))
    return Outcome(status, failures, unsent, ranking, state.reports(name))


def _train(
    plan: Plan,
    to_run: list[TrialConfig],
    state: State,
    address: str | None,
    tracker: Tracker,
) -> Progress:
    """Train on a Ray cluster, while the progress is shown; return what it came to."""
    from sweeps.ray_run import connected, run_trials  # Ray is imported late as well

    with connected(address) as nodes:
        at_once = concurrency(plan.sweep.resources, nodes)
        costs = estimate(to_run, plan.corpus, at_once).costs
        progress = Progress(plan, len(plan.trials) - len(to_run), costs)
        longest_first = sorted(to_run, key=lambda trial: -costs[trial.key].seconds)
        with progress.shown():
            run_trials(
                longest_first,
                plan.corpus,
                plan.sweep.resources,
                at_once,
                state.sweep(plan.sweep.name),
                [tracker.listen, progress.listen],
            )
    for key in progress.running:  # an interrupted sweep leaves them
        tracker.listen(TrialEvent(key, "stopped"))
    return progress
