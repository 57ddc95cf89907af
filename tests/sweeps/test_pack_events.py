"""What a worker reports of a pack becomes events of its trials, without Ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.execution.pack_events import ROUNDS, DriverContext, PackEvents
from sweeps.execution.slots import SlotLimit
from sweeps.process.stopping import Stop
from sweeps.records.events import EndCause, TrialEvent
from sweeps.resources.gpus import GpuShares
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.persistence.storage import SharedFolder
from trainables.training.loop import Evaluation
from trainables.worker.reports import (
    FailureKind,
    PackConfig,
    PackSplit,
    SplitCause,
    TrialFailure,
    TrialReport,
    WorkerReport,
)

EVALUATION = Evaluation(
    step=3, train_loss=2.5, val_loss=2.75, best_val_loss=2.75, training_s=1.0, tokens_per_s=96.0
)


class Run:
    """Two trials that run as one pack, with what happens to them."""

    def __init__(self, trials: list[TrialConfig], root: Path) -> None:
        self.queue = Queue()
        self.queue.put(trials)
        self.slots, self.stop = SlotLimit(lambda: 1), Stop()
        self.events: list[TrialEvent] = []
        packs = Packs(Resources(pack=2))
        self.pack: PackConfig = {
            "keys": [trial.key for trial in trials],
            "trials": "",
            "gpus": 0.5,
            "report_s": 0.0,
        }
        assert [trial.key for trial in self.queue.next(packs)] == self.pack["keys"]
        self.slots.add(self.pack["keys"][0])
        self.handler = PackEvents(
            DriverContext(
                self.queue,
                packs,
                GpuShares(0.5),
                self.slots,
                self.stop,
                SharedFolder(root),
                [self.events.append],
            )
        )

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def run(make_trial: Callable[..., TrialConfig], tmp_path: Path) -> Run:
    return Run([make_trial("bigram", seed=seed) for seed in range(2)], tmp_path)


@pytest.mark.parametrize("kind", [FailureKind.DIVERGED, FailureKind.ERROR])
def test_a_failure_has_its_cause_and_the_other_trial_runs(kind: FailureKind, run: Run) -> None:
    first, second = run.pack["keys"]
    report = WorkerReport([TrialFailure(first, kind, "SomeError: no")])
    assert not run.handler.on_report(run.pack, report)
    (event,) = run.events
    assert (event.key, event.kind, event.reason) == (first, "failed", "SomeError: no")
    assert event.cause is EndCause(kind.value)
    assert list(run.queue.running) == [second]


def test_every_kind_of_failure_is_a_cause_of_an_end() -> None:
    assert {kind.value for kind in FailureKind} <= {cause.value for cause in EndCause}


def test_a_trial_without_memory_gets_a_larger_share_once_and_then_fails(run: Run) -> None:
    first, _ = run.pack["keys"]
    report = WorkerReport([TrialFailure(first, FailureKind.OUT_OF_MEMORY, "OutOfMemoryError: 2")])
    run.handler.on_report(run.pack, report)
    assert run.kinds == ["enlarged"]
    assert [trial.key for trial in run.queue.waiting] == [first]
    (trial,) = run.queue.next(Packs(Resources()))
    run.handler.on_report({"keys": [trial.key], "trials": "", "gpus": 1.0, "report_s": 0.0}, report)
    assert run.kinds == ["enlarged", "failed"]
    assert run.events[-1].cause is EndCause.OUT_OF_MEMORY


def test_progress_has_the_rows_of_evaluations_and_the_last_one_finishes(run: Run) -> None:
    first, _ = run.pack["keys"]
    progress = TrialReport(first, 3, True, [EVALUATION], host="here", usage={"cpu": 97.0})
    run.handler.on_report(run.pack, WorkerReport([progress]))
    assert run.kinds == ["progressed", "finished"]
    (row,) = run.events[0].evaluations
    assert row == {
        "step": 3, "train_loss": 2.5, "val_loss": 2.75, "best_val_loss": 2.75, "training_s": 1.0,
        "tokens_per_s": 96.0, "train_part": "exact", "test_loss": None, "host": "here",
        "usage": {"cpu": 97.0},
    }  # fmt: skip


def test_trials_of_a_split_pack_are_queued_again_in_their_order(run: Run) -> None:
    split = PackSplit(SplitCause.MEMORY, "OutOfMemoryError: 2")
    run.handler.on_end(run.pack, WorkerReport(done=True, split=split))
    assert run.kinds == ["preempted", "preempted"]
    text = "its pack of 2 did not fit into memory, goes on in one of 1 (OutOfMemoryError: 2)"
    assert {event.reason for event in run.events} == {text}
    assert [trial.key for trial in run.queue.waiting] == run.pack["keys"]
    assert not run.slots.is_full


def test_a_storage_that_cannot_be_written_stops_the_sweep_and_ends_no_trial(run: Run) -> None:
    run.handler.on_end(run.pack, WorkerReport(done=True, storage_error="the disk is full"))
    assert (run.stop.cause, run.stop.message) == ("storage", "the disk is full")
    assert run.events == []


def test_trials_whose_idle_worker_dies_are_queued_again_but_not_for_ever(run: Run) -> None:
    for _ in range(ROUNDS):
        run.handler.on_drop(run.pack, "line\nRayActorError: gone")
        assert run.kinds[-2:] in (["restarted", "restarted"], ["restarted", "failed"])
        run.queue.next(Packs(Resources(pack=2)))
    failed = [event for event in run.events if event.kind == "failed"]
    assert [event.key for event in failed] == run.pack["keys"][::-1]
    assert {(event.reason, event.cause) for event in failed} == {
        ("RayActorError: gone", EndCause.ERROR)
    }


def test_a_report_survives_the_way_to_the_driver() -> None:
    report = WorkerReport(
        [TrialReport("a", 3, False, [EVALUATION]), TrialFailure("b", FailureKind.ERROR, "no")],
        split=PackSplit(SplitCause.DEATHS),
    )
    assert pickle.loads(pickle.dumps(report)) == report
