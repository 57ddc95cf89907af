"""Trains the trials of a sweep by our workers, without Ray and MLflow.

    python -m benchmarks.bare SWEEP [OVERRIDES ...] --corpora CACHE

For machines that have neither. Trials form packs as in a sweep, and several packs train at once in
processes of one thread. Checkpoints, logs and samples go to a temporary folder. Prints one line of
JSON, as the plain ways do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.measuring import best_device
from benchmarks.plain_loop import summary
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
from trainables.worker.reports import TrialFailure
from trainables.worker.worker import Worker

REPORT_S = 10.0  # how long a worker trains before it reports on its trials

worker: Worker  # of this process


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


def start(corpus: Corpus, folder: Path) -> None:
    """Make the worker of this process."""
    global worker
    worker = Worker(corpus, SharedFolder(folder), threads=1, gpu=best_device().type == "cuda")


def train(trials: Sequence[Mapping[str, object]]) -> list[dict[str, float]]:
    """Train a pack to its end, and return the last evaluation of each trial.

    Raises:
        RuntimeError: the trials cannot train together, or one failed.
    """
    started_s = time.time()
    worker.assign(trials)
    last: dict[str, Evaluation] = {}
    done = False
    while not done:
        report = worker.advance(REPORT_S)
        done = report.done
        if report.split:
            raise RuntimeError(f"not trained as one: {report}")
        for trial in report.trials:
            if isinstance(trial, TrialFailure):
                raise RuntimeError(f"not trained as one: {report}")
            if trial.evaluations:
                last[trial.key] = trial.evaluations[-1]
    configs = [TrialConfig.from_dict(trial) for trial in trials]
    return [
        {
            "tokens": training_tokens(config),
            "val_loss": last[config.key].val_loss,
            "started_s": started_s,
        }
        for config in configs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--at-once", type=int, default=2)
    given = parser.parse_args()
    os.environ["SWEEPS_CORPORA"] = str(given.corpora)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(given.sweep, given.overrides, State(folder))
        packs = [[trial.to_dict() for trial in pack] for pack in packs_of(plan)]
        with ProcessPoolExecutor(given.at_once, spawn, start, (plan.corpus, folder)) as processes:
            print(summary(report for pack in processes.map(train, packs) for report in pack))


if __name__ == "__main__":
    main()
