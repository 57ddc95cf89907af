"""What a worker does with a trial, and the Ray adapter around it, without a cluster."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.files import trial_folder
from trainables.persistence.artifacts import load_model
from trainables.persistence.storage import SharedFolder, StorageError
from trainables.training.evaluation import exact_loss
from trainables.training.loop import Splits
from trainables.worker.ray_trial import RayTrial, RayTrialConfig, RayTrialResult
from trainables.worker.reports import FailureKind, TrialFailure, TrialReport
from trainables.worker.trial_log import log_of
from trainables.worker.worker import Worker

pytestmark = pytest.mark.usefixtures("no_ray_starts")

CORPUS = tokenise("verse", "to be or not to be\n" * 30)


@pytest.fixture
def trial(make_trial: Callable[..., TrialConfig]) -> TrialConfig:
    return make_trial("attention", n_embd=4, max_steps=6, eval_every=3, batch_size=4)


def config(trial: TrialConfig) -> RayTrialConfig:
    trials = json.dumps([trial.to_dict()])
    return {"pack": {"keys": [trial.key], "trials": trials, "gpus": 0.0, "report_s": 0.0}}


def adapter(trial: TrialConfig, root: Path) -> RayTrial:
    """The Ray adapter as it is after Tune made it, without a cluster."""
    made = RayTrial.__new__(RayTrial)
    made.setup(config(trial), corpus=CORPUS, storage=SharedFolder(root), threads=1, gpu=False)
    return made


def worker(trial: TrialConfig, root: Path) -> Worker:
    made = Worker(CORPUS, SharedFolder(root), threads=1, gpu=False)
    made.assign([trial.to_dict()])
    return made


def step(made: Worker) -> TrialReport:
    """Progress of its only trial."""
    (report,) = made.advance(60).trials
    assert isinstance(report, TrialReport)
    return report


def fail(made: Worker) -> TrialFailure:
    """The failure of its only trial."""
    (failure,) = made.advance(60).trials
    assert isinstance(failure, TrialFailure)
    return failure


def steps_of(result: RayTrialResult) -> list[int]:
    """The step of each report of a trial that did not fail."""
    return [report.step for report in result["report"].trials if isinstance(report, TrialReport)]


def test_it_reports_the_past_then_each_evaluation_then_the_end(
    trial: TrialConfig, tmp_path: Path
) -> None:
    made = worker(trial, tmp_path)
    results = [step(made) for _ in range(3)]
    assert [result.step for result in results] == [0, 3, 6]
    assert [result.resumed for result in results] == [True, False, False]
    assert [result.done for result in results] == [False, False, True]
    assert [e.step for result in results for e in result.evaluations] == [3, 6]


def test_the_adapter_tells_the_past_and_the_first_evaluation_in_one_call(
    trial: TrialConfig, tmp_path: Path
) -> None:
    made = adapter(trial, tmp_path)
    for _ in range(2):  # the second time it is finished already
        results = [made.step()]
        while not results[-1]["done"]:
            results.append(made.step())
        steps = [steps_of(result) for result in results]
        assert steps in ([[0, 3], [6]], [[6]])
        made.reset_config(config(trial))
    assert steps == [[6]]


def test_the_adapter_tells_evaluations_of_the_past_before_it_trains_on(
    trial: TrialConfig, tmp_path: Path
) -> None:
    before = adapter(trial, tmp_path)
    assert steps_of(before.step()) == [0, 3]  # and dies, before the driver has this
    after = adapter(trial, tmp_path)
    assert [steps_of(after.step()) for _ in range(2)] == [[3], [6]]


def test_storage_that_takes_nothing_is_no_failure_of_the_trial(
    trial: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = worker(trial, tmp_path)
    made.advance(60)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = made.advance(60)
    assert result.done
    assert "No space left on device" in result.storage_error
    assert result.trials == ()
    assert step(made).step == 0  # it goes on from what is saved


def test_a_trial_that_fails_says_why_and_the_worker_takes_the_next(
    trial: TrialConfig, make_trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    diverging = make_trial("bigram", learning_rate=1e30, max_steps=9, batch_size=4)
    made = worker(diverging, tmp_path)
    made.advance(60)
    report = made.advance(60)
    assert report.done
    (result,) = report.trials
    assert isinstance(result, TrialFailure)
    assert result.reason.startswith("TrainingDivergedError: the loss is ")
    assert result.kind is FailureKind.DIVERGED
    log = log_of(trial_folder(tmp_path, diverging.key)).read_text()
    assert f"failed: {result.reason}\nTraceback" in log
    made.assign([trial.to_dict()])
    assert step(made).resumed


def test_a_gpu_without_room_is_a_failure_that_is_told_apart(
    trial: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    made = worker(trial, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("trainables.worker.worker.Splits.of", full)  # not even for the corpus
        result = fail(made)
    assert result.kind is FailureKind.OUT_OF_MEMORY
    assert result.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    made.advance(60)
    with monkeypatch.context() as patch:
        patch.setattr("trainables.training.loop.batch_loss", full)
        assert fail(made).kind is FailureKind.OUT_OF_MEMORY
    assert step(made).resumed


def test_an_adapter_that_is_stopped_or_turned_to_another_trial_saves_first(
    trial: TrialConfig, make_trial: Callable[..., TrialConfig], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("trainables.worker.ray_trial.STEP_S", 0.0)  # a step at a time
    other = make_trial("bigram", max_steps=6, batch_size=4)
    made = adapter(trial, tmp_path)
    for turn in (made.cleanup, lambda: made.reset_config(config(other))):
        before = steps_of(made.step())[-1]  # what it goes on from, and a step
        turn()
        made.reset_config(config(trial))
        assert steps_of(made.step())[0] == before
        made.cleanup()
        made.reset_config(config(trial))


def test_a_machine_without_the_shared_storage_trains_nothing(
    trial: TrialConfig, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="share the state directory"):
        adapter(trial, tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_says_where_it_was_made_and_what_it_took(
    trial: TrialConfig, tmp_path: Path
) -> None:
    made = worker(trial, tmp_path)
    made.advance(60)
    report = step(made)
    (evaluation,) = report.rows()
    assert evaluation["host"] == platform.node()
    assert evaluation["usage"] == report.usage
    assert report.usage["process_cpu_utilization_percentage"] > 0
    made.pause()
    (past,) = step(made).rows()  # it is told again, and the outbox knows it
    assert past == {name: past[name] for name in evaluation.keys() - {"host", "usage"}}


def test_an_evaluation_on_a_machine_without_a_name_says_what_it_took(
    trial: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", str)
    made = worker(trial, tmp_path)
    made.advance(60)
    report = step(made)
    (evaluation,) = report.rows()
    assert evaluation["host"] == ""
    assert evaluation["usage"] == report.usage


NOISY = '''
from dataclasses import dataclass

from bigram_models import BigramTable


class Noisy(BigramTable):
    """A model that talks, and fails if told so."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        fails: bool

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.fails = config.fails

    def forward(self, ids_BT):
        print("forward", ids_BT.shape[0])
        if self.fails:
            raise RuntimeError("as told")
        return super().forward(ids_BT)
'''


def without_times(log: str) -> list[str]:
    """The lines, without the time and what differs from machine to machine."""
    lines = [re.sub(r"^\d{4}-\d\d-\d\dT\S+ ", "", line) for line in log.splitlines()]
    return [re.sub(r"process \d+ on .*|[\d.]+(?=,| nats)", "...", line) for line in lines]


def test_the_log_has_all_of_a_trial_and_goes_on_where_it_does(
    make_trial: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy_model.py").write_text(NOISY)
    monkeypatch.syspath_prepend(tmp_path)
    noisy, failing = (
        make_trial("noisy_model:Noisy", fails=fails, max_steps=2, eval_every=1, batch_size=4)
        for fails in (False, True)
    )
    made = worker(noisy, tmp_path)
    made.advance(60)
    made.advance(60)
    made.assign([failing.to_dict()])
    made.advance(60)
    failure = fail(made)
    assert failure.reason == "RuntimeError: as told"
    assert failure.kind is FailureKind.ERROR
    made.assign([noisy.to_dict()])
    made.advance(60)
    assert made.advance(60).done
    made.pause()
    logs = [log_of(trial_folder(tmp_path, each.key)).read_text() for each in (noisy, failing)]
    said, failed = (without_times(log) for log in logs)
    ours = [line for line in said if not line.startswith("forward")]
    assert ours == [
        "started by ...",
        "starts at step 0",
        "step 1: train_loss ..., val_loss ... nats per character",
        "paused at step 1",
        "started by ...",
        "starts at step 1",
        "step 2: train_loss ..., val_loss ... nats per character",
        "finished",
    ]
    assert "forward 4" in said
    assert failed[:4] == [
        "started by ...",
        "starts at step 0",
        "forward 4",
        "failed: RuntimeError: as told",
    ]
    assert failed[4].startswith("Traceback")
    assert failed[-1] == "RuntimeError: as told"


def test_a_log_names_a_training_loss_only_where_there_is_one(
    make_trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    trial = make_trial(max_steps=2, eval_every=1, batch_size=4, evaluate_train="end")
    made = worker(trial, tmp_path)
    while not made.advance(60).done:
        pass
    text = log_of(trial_folder(tmp_path, trial.key)).read_text()
    assert [line for line in without_times(text) if line.startswith("step ")] == [
        "step 1: val_loss ... nats per character",
        "step 2: train_loss ..., val_loss ... nats per character",
    ]


def test_a_log_that_cannot_be_written_stops_no_trial(trial: TrialConfig, tmp_path: Path) -> None:
    log_of(trial_folder(tmp_path, trial.key)).mkdir(parents=True)
    made = worker(trial, tmp_path)
    assert [step(made).step for _ in range(3)] == [0, 3, 6]


def test_a_report_gathers_the_evaluations_of_some_seconds(
    make_trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    trial = make_trial("bigram", max_steps=6, eval_every=1, batch_size=4)
    made = adapter(trial, tmp_path)
    assert steps_of(made.step()) == [0, 1]  # where it starts, and one evaluation
    given = config(trial)
    given["pack"]["report_s"] = 600.0
    made.reset_config(given)
    result = made.step()
    assert steps_of(result) == [1, 2, 3, 4, 5, 6]
    assert result["done"]


def test_trials_that_are_tested_and_others_share_a_worker(
    trial: TrialConfig, tmp_path: Path
) -> None:
    corpus = tokenise("verse", "to be or not to be\n" * 30, 0.1)
    made = Worker(corpus, SharedFolder(tmp_path), threads=1, gpu=False)
    with_split = replace(trial, corpus_test=0.1)
    losses = []
    for seed, is_tested in enumerate([False, True, False]):
        one = replace(with_split, seed=seed, is_tested=is_tested)
        made.assign([one.to_dict()])
        *_, last = [step(made) for _ in range(3)]
        losses.append(last.evaluations[-1].test_loss)
        folder = trial_folder(tmp_path, one.key) / "artifacts"
        model, _, again = load_model(folder)
        assert again == one
        if is_tested:
            test = Splits.of(corpus, torch.device("cpu"), with_test=True).test
            assert test is not None
            expected = exact_loss(model, test, one.training.block_size)
            assert losses[-1] == pytest.approx(expected, abs=1e-6)
            assert f"test_loss {expected:.5f} nats" in log_of(folder.parent).read_text()
    assert losses[0] is None
    assert losses[2] is None
