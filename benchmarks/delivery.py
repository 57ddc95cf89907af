"""Sends runs to MLflow: by our delivery of an outbox, and by a client call for each value.

The trials are made up; the outbox, the delivery and the store on sqlite are real. The stock way
then copies that store into another one, run by run, with a call for each param, tag and metric, as
a script with ``mlflow.log_param`` and ``log_metric`` does.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis.trials.mlflow_store import runs_of
from analysis.trials.sqlite_store import STORE, artifacts_beside
from benchmarks.measuring import BenchmarkOptions, Samples, print_section, print_table
from sweeps.planning.planner import make_plan
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.outbox_file import OUTBOX
from sweeps.records.state import State
from sweeps.tracking.delivery import Delivery
from sweeps.tracking.description import describe_sweep, describe_trial
from sweeps.tracking.store import mlflow_client, sweep_experiments
from sweeps.tracking.sweep_runs import SweepRuns
from trainables.persistence.storage import SharedFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

TRIALS, TRIALS_QUICK = 200, 4
OURS, STOCK = "our delivery", "a client call for each value"
ABOUT = """Runs a second to sqlite: median (least to most) over rounds. Both write the same params,
tags and metrics with their steps; the stores are made before the clock starts."""

SWEEP = "scale"
STEPS = range(500, 5_001, 500)
GRID = """
name: {name}
corpus: embedded
replicates: {replicates}
training: {{max_steps: {steps}, eval_every: {every}}}
arms:
  - model: {{variant: attention}}
    grid:
      model.pe_type: [randn, rope]
      model.n_embd: [16, 32, 48, 64, 80, 96, 112, 128, 144, 160]
      training.block_size: [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
      training.learning_rate: [1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2, 2e-2, 3e-2, 5e-2, 7e-2]
"""
CONFIGURATIONS = 2_000  # of this grid


@dataclass(frozen=True)
class FilledOutbox:
    """An outbox of finished trials, none of them sent."""

    path: Path
    trials: int
    best: float  # the lowest loss


@dataclass(frozen=True)
class RunWithMetrics:
    """A run in a store."""

    run: Run
    metrics: Sequence[Metric]  # of all steps


def run(options: BenchmarkOptions) -> None:
    print_section("delivery", ABOUT, torch.device("cpu"))
    per_second: dict[str, list[float]] = {OURS: [], STOCK: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled = fill(folder, TRIALS_QUICK if options.is_quick else TRIALS)
        for number in range(options.rounds):
            state = State(folder / f"round {number}")
            client = mlflow_client(state.tracking_uri)
            per_second[OURS].append(filled.trials / deliver(state.tracking_uri, filled, state))
            contents = list(contents_of(client))
            if len(contents) != filled.trials:
                raise RuntimeError(f"{len(contents)} of {filled.trials} runs were delivered")
            stock_s = write_one_by_one(f"sqlite:///{state.root / 'stock.db'}", contents)
            per_second[STOCK].append(filled.trials / stock_s)
    values = sum(len(stored.run.data.params) + len(stored.run.data.tags) for stored in contents)
    points = sum(len(stored.metrics) for stored in contents)
    of_stock = Samples(per_second[STOCK]).median
    print_table(
        [
            {
                "way": way,
                "runs": filled.trials,
                "params and tags a run": values / filled.trials,
                "metrics a run": points / filled.trials,
                "runs a second": Samples(rates),
                "this / stock": Samples(rates).median / of_stock,
            }
            for way, rates in per_second.items()
        ]
    )


def contents_of(client: MlflowClient) -> Iterator[RunWithMetrics]:
    """Yield the runs of trials in a store."""
    (experiment_id,) = sweep_experiments(client, SWEEP).values()
    for run in runs_of(client, experiment_id, "trial"):
        histories = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
        yield RunWithMetrics(run, [metric for history in histories for metric in history])


def write_one_by_one(uri: str, contents: Sequence[RunWithMetrics]) -> float:
    """Write runs into a new store, a call for each value, and return the seconds."""
    client = mlflow_client(uri)
    started = time.perf_counter()
    experiment_id = client.create_experiment("stock")
    for content in contents:
        data = content.run.data
        run_id = client.create_run(experiment_id, run_name=content.run.info.run_name).info.run_id
        for name, value in data.params.items():
            client.log_param(run_id, name, value)
        for name, value in data.tags.items():
            client.set_tag(run_id, name, value)
        for metric in content.metrics:
            client.log_metric(run_id, metric.key, metric.value, metric.timestamp, metric.step)
        client.set_terminated(run_id)
    return time.perf_counter() - started


def fill(folder: Path, trials: int) -> FilledOutbox:
    """Make an outbox in a folder as if a sweep had just trained this number of trials."""
    text = GRID.format(
        name=SWEEP,
        replicates=math.ceil(trials / CONFIGURATIONS),
        steps=STEPS[-1],
        every=STEPS.step,
    )
    (folder / "sweep.yaml").write_text(text)
    plan = make_plan(str(folder / "sweep.yaml"), [], State(folder))
    chosen = plan.trials[:trials]
    chance = np.random.default_rng(1)
    best = math.inf
    with closing(Outbox(folder / OUTBOX, SWEEP)) as outbox:
        described = {trial.key: describe_trial(plan, trial) for trial in chosen}
        outbox.describe(describe_sweep(plan), described)
        for key in described:
            losses = 2.3 + 100 / np.array(STEPS) + chance.normal(0, 0.01)
            outbox.record(TrialEvent(key, "started"))
            by_step = zip(STEPS, losses.tolist(), strict=True)
            evaluations = [evaluation(step, loss) for step, loss in by_step]
            outbox.record(TrialEvent(key, "progressed", STEPS[-1], evaluations, hardware="none"))
            outbox.record(TrialEvent(key, "finished"))
            best = min(best, losses[-1])
        outbox.end("FINISHED")
    return FilledOutbox(folder / OUTBOX, len(chosen), best)


def evaluation(step: int, loss: float) -> dict[str, float]:
    nats = {"train_loss": loss - 0.02, "val_loss": loss, "best_val_loss": loss}
    return {"step": step, **nats, "training_s": step / 1_000, "tokens_per_s": 1e5}


def deliver(uri: str, filled: FilledOutbox, state: State) -> float:
    """Deliver an outbox to a store, and return the seconds."""
    folder = state.sweep(SWEEP)
    folder.mkdir(parents=True)
    artifacts = artifacts_beside(state.root / STORE, SWEEP) if uri == state.tracking_uri else None
    with closing(Outbox(Path(shutil.copy(filled.path, folder)), SWEEP)) as outbox:

        def connect() -> SweepRuns:
            return SweepRuns(uri, outbox, artifacts, SharedFolder(folder), state.reports(SWEEP))

        started = time.perf_counter()
        with closing(Delivery(outbox, connect)) as delivery:
            if left := delivery.flush():
                raise SystemExit(f"{left} runs were not delivered: {delivery.problem}")
            return time.perf_counter() - started
