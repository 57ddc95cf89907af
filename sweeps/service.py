"""Bringing about what a sweep file describes: plan, train, track, rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import load_trials, tables, write_tables
from sweeps.estimate import estimate
from sweeps.plan import Plan, expand, override
from sweeps.progress import Progress
from sweeps.resources import concurrency, local_node
from sweeps.spec import load_sweep
from sweeps.state import State, make_writable
from trainables.corpus import load_corpus


@dataclass(frozen=True)
class Outcome:
    """What a run of a sweep came to."""

    done: int  # finished trials of the sweep, by this run or an earlier one
    failures: dict[str, str]  # trial key to reason
    unsent: int  # trials with events that the tracking store did not take
    ranking: pd.DataFrame | None  # None when no trial is finished
    reports: Path
    experiment_id: str

    def complete(self, plan: Plan) -> bool:
        """Whether every trial of the sweep is finished."""
        return self.done == len(plan.trials)


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
    resources = plan.sweep.resources
    if address is None:
        concurrency(resources, [local_node()])
    make_writable(state)
    # MLflow and Ray are imported late: neither `--help` nor a refused sweep file waits for them.
    from sweeps.ray_run import connected, run_trials
    from sweeps.store import mlflow_client
    from sweeps.tracking import Tracker

    uri = tracking_uri or plan.sweep.tracking.uri or state.tracking_uri
    folder = state.sweep(plan.sweep.name)
    artifacts = state.artifacts(plan.sweep.name) if uri == state.tracking_uri else None
    tracker = Tracker(mlflow_client(uri), plan, artifacts, folder)
    done_before = {trial.key for trial in plan.trials} & tracker.finished_keys
    to_run = [trial for trial in plan.trials if trial.key not in done_before]
    say(f"{plan.sweep.name}: {len(done_before)} done, {len(to_run)} to run")
    failures: dict[str, str] = {}
    finished: set[str] = set()
    if to_run:
        with connected(address) as nodes:
            at_once = concurrency(resources, nodes)
            costs = estimate(to_run, plan.corpus, at_once).costs
            progress = Progress(plan, len(done_before), costs)
            to_run.sort(key=lambda trial: -costs[trial.key].seconds)  # no long one at the end
            with progress.shown():
                run_trials(
                    to_run,
                    plan.corpus,
                    resources,
                    at_once,
                    folder,
                    [tracker.listen, progress.listen],
                )
            failures, finished = progress.failures, progress.finished
    unsent = tracker.close()
    done = len(done_before) + len(finished)
    ended = done + len(failures) == len(plan.trials)
    status = "FINISHED" if done == len(plan.trials) else "FAILED" if ended else "KILLED"
    reports = state.reports(plan.sweep.name)
    ranking = None
    if done and not unsent:
        named = tables(load_trials(plan.sweep.name, uri))
        write_tables(named, reports)
        ranking = named["ranking"]
    tracker.finish(status, ranking, reports)
    return Outcome(done, failures, unsent, ranking, reports, tracker.experiment_id)
