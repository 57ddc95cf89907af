"""The Ray adapter by itself: what it reports, without a cluster."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.config import TrialConfig
from trainables.corpus import tokenise
from trainables.files import trial_folder
from trainables.ray_trial import RayTrial
from trainables.storage import SharedFolder, StorageError

CORPUS = tokenise("verse", "to be or not to be\n" * 30)


def carried(trial: TrialConfig) -> dict[str, Any]:
    return {"carried": {"key": trial.key, "trial": trial.to_dict()}}


@pytest.fixture
def trial(make_trial: Callable[..., TrialConfig]) -> TrialConfig:
    return make_trial("attention", n_embd=4, max_steps=6, eval_every=3, batch_size=4)


def worker(trial: TrialConfig, root: Path) -> RayTrial:
    """A worker as it is after Tune made it."""
    made = RayTrial.__new__(RayTrial)
    made.setup(carried(trial), corpus=CORPUS, storage=SharedFolder(root), threads=1, gpu=False)
    return made


def test_it_reports_the_past_then_each_evaluation_then_the_end(
    trial: TrialConfig, tmp_path: Path
) -> None:
    made = worker(trial, tmp_path)
    results = [made.step() for _ in range(3)]
    assert [result["step"] for result in results] == [0, 3, 6]
    assert [result["taken_up"] for result in results] == [True, False, False]
    assert [result["done"] for result in results] == [False, False, True]
    assert [e["step"] for result in results for e in result["evaluations"]] == [3, 6]


def test_storage_that_takes_nothing_is_no_failure_of_the_trial(
    trial: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = worker(trial, tmp_path)
    made.step()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = made.step()
    assert result["done"]
    assert "No space left on device" in result["storage"]
    assert "failure" not in result
    assert made.step()["step"] == 0  # it goes on from what is saved


def test_a_trial_that_fails_says_why_and_the_worker_takes_the_next(
    trial: TrialConfig, make_trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    diverging = make_trial("bigram", learning_rate=1e30, max_steps=9, batch_size=4)
    made = worker(diverging, tmp_path)
    made.step()
    result = made.step()
    assert result["done"]
    assert result["failure"].startswith("TrainingDivergedError: the loss is ")
    assert not result["out_of_memory"]
    log = trial_folder(tmp_path, diverging.key) / "error.txt"
    assert "Traceback" in log.read_text()
    assert made.reset_config(carried(trial))
    assert made.step()["taken_up"]


def test_a_gpu_without_room_is_a_failure_that_is_told_apart(
    trial: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    made = worker(trial, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("trainables.ray_trial.Splits.of", full)  # not even for the corpus
        result = made.step()
    assert result["out_of_memory"]
    assert result["failure"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    made.step()
    with monkeypatch.context() as patch:
        patch.setattr("trainables.training.next_token_loss", full)
        assert made.step()["out_of_memory"]
    assert made.step()["taken_up"]


def test_a_worker_that_is_stopped_or_turned_to_another_trial_saves_first(
    trial: TrialConfig, make_trial: Callable[..., TrialConfig], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("trainables.ray_trial.STEP_S", 0.0)  # a step at a time
    other = make_trial("bigram", max_steps=6, batch_size=4)
    made = worker(trial, tmp_path)
    for turn in (made.cleanup, lambda: made.reset_config(carried(other))):
        before = made.step()["step"]  # what it goes on from
        made.step()
        turn()
        made.reset_config(carried(trial))
        assert made.step()["step"] == before + 1
        made.cleanup()


def test_a_machine_without_the_shared_storage_trains_nothing(
    trial: TrialConfig, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="share the state directory"):
        worker(trial, tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
