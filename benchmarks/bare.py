"""Trains the trials of a sweep by our workers, without Ray and MLflow.

    python -m benchmarks.bare SWEEP [OVERRIDES ...] --corpora CACHE

For machines that have neither. Trials form packs as in a sweep, and several packs train at once in
processes of one thread. Checkpoints, logs and samples go to a temporary folder. Prints one line of
JSON, as the plain ways do, with the time of each pack by parts. With --one-of-each, of the packs
of one size and shape only one is trained.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measuring import best_device
from benchmarks.parts import OTHER, SET_UP, Stopwatch, watch_worker
from benchmarks.plain_loop import Report, summary
from sweeps.planning.costs import training_tokens
from sweeps.planning.estimate import estimate
from sweeps.planning.plan import Plan
from sweeps.planning.planner import make_plan
from sweeps.records.state import State
from sweeps.resources.allocation import allocate
from sweeps.resources.gpu_report import gpus_here
from sweeps.resources.nodes import local_node
from sweeps.search.queue import Queue
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.persistence.storage import SharedFolder
from trainables.training.loop import Evaluation
from trainables.training.stack import stack_shape
from trainables.worker.reports import SplitCause, TrialFailure, TrialReport
from trainables.worker.worker import Worker

REPORT_S = 10.0  # how long a worker trains before it reports on its trials

worker: Worker  # of this process
watch: Stopwatch  # of the worker


@dataclass(frozen=True)
class TrainedPack:
    """A pack that was trained to its end."""

    reports: Sequence[Report]  # of each trial
    intervals: Sequence[Mapping[str, float]]  # seconds by part, from evaluation to evaluation


def packs_of(plan: Plan) -> Iterator[list[TrialConfig]]:
    """Yield the packs of a sweep, as a sweep forms them on this machine."""
    allocation = allocate(plan, plan.trials, [local_node()], [gpus_here()])
    queue = Queue()
    queue.put(plan.trials)
    if allocation.gpu_packs:
        cost = estimate(plan.trials, plan.corpus, gpu_packs=allocation.gpu_packs)
        queue.sort(cost.of_pack)
    while trials := queue.next(allocation.packs):
        yield trials


def alike(packs: Iterable[list[TrialConfig]]) -> list[list[list[TrialConfig]]]:
    """Return the packs in groups of one shape and size."""
    groups: dict[Hashable, list[list[TrialConfig]]] = {}
    for pack in packs:
        groups.setdefault((stack_shape(pack[0]), len(pack)), []).append(pack)
    return list(groups.values())


def start(corpus: Corpus, folder: Path) -> None:
    """Make the worker of this process."""
    global worker, watch
    worker = Worker(corpus, SharedFolder(folder), threads=1, gpu=best_device().type == "cuda")
    watch = watch_worker()


def train(trials: Sequence[Mapping[str, object]]) -> list[TrainedPack]:
    """Train a pack to its end; in halves if it does not fit into memory.

    Raises:
        RuntimeError: the trials cannot train together, or one failed.
    """
    started_s = time.time()
    last: dict[str, Evaluation] = {}
    intervals = []
    try:
        for evaluations in evaluated(trials):
            last |= evaluations
            intervals.append(watch.take())
    except torch.OutOfMemoryError:
        middle = len(trials) // 2
        return train(trials[:middle]) + train(trials[middle:])
    ended_s = time.time()
    reports = [
        {
            "tokens": training_tokens(config),
            "val_loss": last[config.key].val_loss,
            "started_s": started_s,
            "ended_s": ended_s,
        }
        for config in map(TrialConfig.from_dict, trials)
    ]
    return [TrainedPack(reports, intervals)]


def evaluated(trials: Sequence[Mapping[str, object]]) -> Iterator[Mapping[str, Evaluation]]:
    """Train a pack, and yield the evaluations by key.

    Raises:
        OutOfMemoryError: they do not fit together into the memory of the GPU.
        RuntimeError: the trials cannot train together, or one failed.
    """
    with watch.part(SET_UP):
        worker.assign(trials)
        worker.advance(REPORT_S)  # where they start
    done = False
    while not done:
        with watch.part(OTHER):
            report = worker.advance(REPORT_S)
        done = report.done
        if report.split and report.split.cause is SplitCause.MEMORY:
            raise torch.OutOfMemoryError(report.split.reason)
        failed = any(isinstance(trial, TrialFailure) for trial in report.trials)
        if report.split or report.storage_error or failed:
            raise RuntimeError(f"not trained as one: {report}")
        progress = [trial for trial in report.trials if isinstance(trial, TrialReport)]
        if new := {trial.key: trial.evaluations[-1] for trial in progress if trial.evaluations}:
            yield new


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--one-of-each", action="store_true", help="shape and size of a pack")
    given = parser.parse_args()
    os.environ["SWEEPS_CORPORA"] = str(given.corpora)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(given.sweep, given.overrides, State(folder))
        packs = list(packs_of(plan))
        groups = alike(packs) if given.one_of_each else [[pack] for pack in packs]
        work = [[trial.to_dict() for trial in group[0]] for group in groups]
        with ProcessPoolExecutor(given.at_once, spawn, start, (plan.corpus, folder)) as processes:
            trained = list(processes.map(train, work))
    times = [
        {"trials": len(pack.reports), "packs": len(group), "intervals": pack.intervals}
        for group, packs_of_group in zip(groups, trained, strict=True)
        for pack in packs_of_group
    ]
    reports = (report for packs in trained for pack in packs for report in pack.reports)
    print(summary(reports, times))


if __name__ == "__main__":
    main()
