"""A worker that trains several trials as one: each stays a trial of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigram_models import LanguageModel
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.files import trial_folder
from trainables.persistence import artifacts
from trainables.persistence.artifacts import load_model, sample_text
from trainables.persistence.storage import SharedFolder
from trainables.training.adamw import adamw_
from trainables.training.loop import Splits, initial_state, train
from trainables.worker.reports import (
    FailureKind,
    PackSplit,
    SplitCause,
    TrialFailure,
    TrialReport,
    WorkerReport,
)
from trainables.worker.trial_log import log_of
from trainables.worker.worker import SPLIT_DEATHS, Worker

MakeTrial = Callable[..., TrialConfig]
CORPUS = tokenise("verse", "to be or not to be\n" * 30)
SETTINGS: dict[str, Any] = {"max_steps": 6, "eval_every": 3, "batch_size": 4}


@pytest.fixture(params=["bigram", "attention"])  # of one parameter, and of three
def trials(make_trial: MakeTrial, request: pytest.FixtureRequest) -> list[TrialConfig]:
    own = {"n_embd": 4} if request.param == "attention" else {}
    return [make_trial(request.param, seed=seed, **own, **SETTINGS) for seed in range(3)]


def worker(trials: Sequence[TrialConfig], root: Path) -> Worker:
    made = Worker(CORPUS, SharedFolder(root), threads=1, gpu=False)
    made.assign([trial.to_dict() for trial in trials])
    return made


Reports = Sequence[TrialReport | TrialFailure]


def finish(made: Worker) -> dict[str, list[TrialReport | TrialFailure]]:
    """All that a worker reports to the end of what it has, by key."""
    reports: dict[str, list[TrialReport | TrialFailure]] = {}
    while True:
        report = made.advance(60)
        for each in report.trials:
            reports.setdefault(each.key, []).append(each)
        if report.done:
            assert not report.split
            return reports


def progress(reports: Reports) -> list[TrialReport]:
    """The reports, none of which is of a failure."""
    assert all(isinstance(report, TrialReport) for report in reports)
    return [report for report in reports if isinstance(report, TrialReport)]


def steps(report: WorkerReport) -> list[int]:
    """The steps of the trials."""
    return [each.step for each in progress(report.trials)]


def assert_as_alone(trial: TrialConfig, reports: Reports) -> None:
    state = initial_state(trial, CORPUS.vocab_size)
    splits = Splits.of(CORPUS, torch.device("cpu"))
    expected = {e.step: e.val_loss for e in train(state, splits, trial.training, trial.seed)}
    found = {e.step: e.val_loss for report in progress(reports) for e in report.evaluations}
    assert found == pytest.approx(expected, abs=1e-5)
    assert progress(reports)[-1].done


def test_each_trial_of_a_pack_has_its_reports_checkpoint_artifacts_and_log(
    trials: list[TrialConfig], tmp_path: Path
) -> None:
    by_key = finish(worker(trials, tmp_path))
    assert list(by_key) == [trial.key for trial in trials]
    for trial in trials:
        reports = progress(by_key[trial.key])
        assert_as_alone(trial, reports)
        assert [report.resumed for report in reports] == [True, False, False]
        assert all(row["usage"] for report in reports for row in report.rows())
        folder = trial_folder(tmp_path, trial.key)
        assert (folder / "checkpoint.safetensors").exists()
        assert {"log.txt", "weights.safetensors"} <= {
            p.name for p in (folder / "artifacts").iterdir()
        }
        log = log_of(folder).read_text()
        assert ", in a pack of 3: " in log
        assert log.endswith("finished\n")


def test_what_was_saved_in_a_pack_goes_on_alone_and_the_other_way_round(
    trials: list[TrialConfig], tmp_path: Path
) -> None:
    first = worker(trials, tmp_path)
    first.advance(60)
    first.advance(0)
    first.pause()
    before = worker(trials[:1], tmp_path)
    (report,) = progress(before.advance(60).trials)
    assert (report.step, report.resumed) == (1, True)
    before.advance(0)
    before.pause()
    last = worker(trials, tmp_path)
    assert steps(last.advance(60)) == [2, 1, 1]
    by_key = finish(last)
    for trial in trials:
        assert_as_alone(trial, by_key[trial.key])


def test_a_finished_trial_of_a_pack_says_so_and_the_others_train(
    trials: list[TrialConfig], tmp_path: Path
) -> None:
    finish(worker(trials[:1], tmp_path))
    by_key = finish(worker(trials, tmp_path))
    assert [len(by_key[trial.key]) for trial in trials] == [1, 3, 3]
    for trial in trials:
        assert_as_alone(trial, by_key[trial.key])


def test_a_trial_that_fails_in_a_pack_fails_by_itself(
    trials: list[TrialConfig], tmp_path: Path
) -> None:
    fast = trials[0].training.model_copy(update={"learning_rate": 1e30})
    diverging = replace(trials[0], seed=9, training=fast)
    by_key = finish(worker([trials[0], diverging, trials[1]], tmp_path))
    failed = by_key[diverging.key][-1]
    assert isinstance(failed, TrialFailure)
    assert failed.kind is FailureKind.DIVERGED
    assert failed.reason.startswith("TrainingDivergedError: the loss is ")
    assert f"failed: {failed.reason}" in log_of(trial_folder(tmp_path, diverging.key)).read_text()
    for trial in trials[:2]:
        assert_as_alone(trial, by_key[trial.key])


def test_a_pack_that_does_not_fit_is_split_and_nothing_of_it_is_lost(
    trials: list[TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = worker(trials, tmp_path)
    made.advance(60)
    assert steps(made.advance(60)) == [3, 3, 3]

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("trainables.training.stack.adamw_", full)
        report = made.advance(60)
        split = PackSplit(SplitCause.MEMORY, "OutOfMemoryError: CUDA out of memory")
        assert (report.done, list(report.trials), report.split) == (True, [], split)
    assert steps(made.advance(60)) == [3, 3, 3]
    for trial in trials:
        log = log_of(trial_folder(tmp_path, trial.key)).read_text()
        assert "the pack is split: OutOfMemoryError: CUDA out of memory" in log
        assert "paused at" not in log


def test_splits_are_no_deaths(
    trials: list[TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("trainables.training.stack.adamw_", full)
    for _ in range(SPLIT_DEATHS + 1):  # from a pack of 16 to one of 8, of 4
        made = worker(trials, tmp_path)
        made.advance(60)
        split = made.advance(60).split
        assert split
        assert split.cause is SplitCause.MEMORY


def test_what_was_left_in_the_middle_of_a_step_is_not_saved(
    trials: list[TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = worker(trials, tmp_path)
    made.advance(60)
    assert steps(made.advance(0)) == [1, 1, 1]  # not saved yet
    calls = 0

    def ending(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise SystemExit
        adamw_(*given)

    with monkeypatch.context() as patch:
        patch.setattr("trainables.training.stack.adamw_", ending)
        with pytest.raises(SystemExit):
            made.advance(60)
    made.pause()
    last = worker(trials, tmp_path)
    assert steps(last.advance(60)) == [0, 0, 0]
    by_key = finish(last)
    for trial in trials:
        assert_as_alone(trial, by_key[trial.key])


def sample_of(trial: TrialConfig, root: Path) -> str:
    folder = trial_folder(root, trial.key) / "artifacts"
    return (folder / "sample.txt").read_bytes().decode()


def count_calls(monkeypatch: pytest.MonkeyPatch, failing_above: int) -> list[int]:
    """Return a list to which each drawing of samples adds the number of its models.

    Drawing those of more models than some number fails.
    """
    calls: list[int] = []
    draw = artifacts.generate_together

    def counted(models: Sequence[LanguageModel], *arguments: Any) -> Tensor:
        calls.append(len(models))
        if len(models) > failing_above:
            raise RuntimeError("cannot be one")
        return draw(models, *arguments)

    monkeypatch.setattr(artifacts, "generate_together", counted)
    return calls


@pytest.mark.parametrize(("failing_above", "expected"), [(3, [3]), (1, [3, 1, 1, 1])])
def test_samples_of_a_pack_are_drawn_together_or_else_one_by_one(
    trials: list[TrialConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing_above: int,
    expected: list[int],
) -> None:
    calls = count_calls(monkeypatch, failing_above)
    by_key = finish(worker(trials, tmp_path))
    assert calls == expected
    for trial in trials:
        assert progress(by_key[trial.key])[-1].done
        model, vocabulary, _ = load_model(trial_folder(tmp_path, trial.key) / "artifacts")
        assert sample_of(trial, tmp_path) == sample_text(model, vocabulary, "\n", 500, trial.seed)
    assert len({sample_of(trial, tmp_path) for trial in trials}) == 3


def test_a_sample_that_cannot_be_drawn_fails_its_trial_which_keeps_its_checkpoint(
    trials: list[TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        count_calls(patch, failing_above=0)
        made = worker(trials, tmp_path)
        made.advance(60)
        made.advance(60)
        split = made.advance(60).split
        assert split
        assert split.cause is SplitCause.SHAPE
        (failed,) = worker(trials[:1], tmp_path).advance(60).trials
        assert isinstance(failed, TrialFailure)
        assert failed.reason == "RuntimeError: cannot be one"
    (report,) = progress(finish(worker(trials[:1], tmp_path))[trials[0].key])
    assert (report.step, report.done) == (6, True)


def test_only_members_that_are_finished_have_samples(
    trials: list[TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch, failing_above=3)
    fast = trials[2].training.model_copy(update={"learning_rate": 1e30})
    first = worker(trials[:1], tmp_path)  # of which a step is taken before the others begin
    first.advance(60)
    first.advance(0)
    first.pause()
    finish(worker([*trials, replace(trials[2], training=fast)], tmp_path))
    assert calls == [1, 2]


DROPPING = """
from torch.nn.functional import dropout
from bigram_models import BigramTable


class Dropping(BigramTable):
    def forward(self, ids_BT):
        return dropout(super().forward(ids_BT), 0.5, self.training)
"""


def test_trials_that_cannot_be_one_are_split(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dropping_model.py").write_text(DROPPING)
    monkeypatch.syspath_prepend(str(tmp_path))
    trials = [make_trial("dropping_model:Dropping", seed=seed, **SETTINGS) for seed in range(2)]
    made = worker(trials, tmp_path)
    made.advance(60)
    report = made.advance(60)
    assert (list(report.trials), report.done) == ([], True)
    assert report.split
    assert report.split.cause is SplitCause.SHAPE
    assert report.split.reason.startswith(
        "NotStackableError: a model gives other logits in a stack"
    )
    assert progress(finish(worker(trials[:1], tmp_path))[trials[0].key])[-1].done


def test_a_pack_whose_workers_die_is_split_before_its_trials_are_given_up(
    trials: list[TrialConfig], tmp_path: Path
) -> None:
    for _ in range(SPLIT_DEATHS):
        assert not worker(trials, tmp_path).advance(60).split  # and it dies
    report = worker(trials, tmp_path).advance(60)
    assert (list(report.trials), report.done) == ([], True)
    assert report.split == PackSplit(SplitCause.DEATHS)
    assert_as_alone(trials[1], finish(worker(trials[1:2], tmp_path))[trials[1].key])
