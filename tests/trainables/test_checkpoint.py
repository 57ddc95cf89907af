"""Interrupted trials go on bit for bit; damaged files are refused; nothing is unpickled."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.model_cases import every_trained_model
from trainables.config import TrialConfig
from trainables.data.batches import stream
from trainables.files import write_atomically
from trainables.persistence.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from trainables.training.loop import Evaluation, Splits, TrainingState, initial_state, train

MakeTrial = Callable[..., TrialConfig]
V = 11
SPLITS = Splits(
    *(
        torch.randint(V, (length,), generator=stream(length, "text"), dtype=torch.int32)
        for length in (300, 60)
    )
)


def run(state: TrainingState, trial: TrialConfig) -> Iterator[Evaluation]:
    """The evaluations, without what the clock says."""
    for each in train(state, SPLITS, trial.training, trial.seed):
        yield replace(each, training_s=0, tokens_per_s=0)


def restored(trial: TrialConfig, path: Path) -> TrainingState:
    state = initial_state(trial, V)
    load_checkpoint(state, path, trial.key)
    return state


def all_tensors(state: TrainingState) -> dict[str, Tensor]:
    moments = state.optimizer.state if state.optimizer else {}
    return {
        **state.model.state_dict(),
        **({"batches": state.batches.get_state()} if state.batches else {}),
        **{
            f"{i}.{name}": value
            for i, parameter in enumerate(state.model.parameters())
            for name, value in moments[parameter].items()
        },
    }


def assert_equal_states(one: TrainingState, two: TrainingState) -> None:
    first, second = all_tensors(one), all_tensors(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (one.step, one.best_val_loss) == (two.step, two.best_val_loss)


@pytest.fixture
def trial(make_trial: MakeTrial) -> TrialConfig:
    return make_trial("attention", n_embd=4, max_steps=6, eval_every=2, batch_size=4)


@pytest.fixture
def saved(trial: TrialConfig, tmp_path: Path) -> Path:
    """The checkpoint of a trial after its first evaluation."""
    state, path = initial_state(trial, V), tmp_path / "trial" / "checkpoint.safetensors"
    next(run(state, trial))
    save_checkpoint(state, path, trial.key)
    return path


@every_trained_model
@pytest.mark.parametrize("evaluation", ["exact", "sampled", "published"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_trial_ends_as_if_it_had_not_been(
    variant: str,
    settings: dict[str, Any],
    evaluation: str,
    stop_after: int,
    make_trial: MakeTrial,
    tmp_path: Path,
) -> None:
    trial = make_trial(
        variant,
        max_steps=23,
        eval_every=5,
        batch_size=4,
        learning_rate=0.05,
        evaluation=evaluation,
        eval_batches=3,
        **settings,
    )
    whole = initial_state(trial, V)
    expected = list(run(whole, trial))
    stopped, path = initial_state(trial, V), tmp_path / "checkpoint"
    for _, _evaluation in zip(range(stop_after), run(stopped, trial), strict=False):
        save_checkpoint(stopped, path, trial.key)
    state = restored(trial, path)
    looked_at_0 = evaluation == "published"
    assert state.step == 5 * (stop_after - looked_at_0)
    assert list(run(state, trial)) == expected[stop_after:]
    assert_equal_states(state, whole)


def test_saving_changes_nothing(trial: TrialConfig, tmp_path: Path) -> None:
    untouched, saved = initial_state(trial, V), initial_state(trial, V)
    expected = list(run(untouched, trial))
    evaluations = []
    for each in run(saved, trial):
        save_checkpoint(saved, tmp_path / "checkpoint", trial.key)
        evaluations.append(each)
    assert evaluations == expected
    assert_equal_states(saved, untouched)


@pytest.mark.parametrize("variant", ["bigram", "attention", "count"])
@pytest.mark.parametrize("evaluation", ["exact", "sampled", "published"])
def test_a_finished_state_has_its_history_and_nothing_left_to_do(
    variant: str, evaluation: str, make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial(
        variant, max_steps=7, eval_every=3, batch_size=4, evaluation=evaluation, eval_batches=3
    )
    state, path = initial_state(trial, V), tmp_path / "checkpoint"
    list(run(state, trial))
    save_checkpoint(state, path, trial.key)
    again = restored(trial, path)
    assert again.finished(trial.training)
    assert again.history == state.history
    assert list(run(again, trial)) == []
    assert_equal_states(again, state)


def test_an_evaluation_without_a_training_loss_comes_back_as_it_was(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial(max_steps=2, eval_every=1, batch_size=4, evaluate_train="end")
    state, path = initial_state(trial, V), tmp_path / "checkpoint"
    list(run(state, trial))
    save_checkpoint(state, path, trial.key)
    history = restored(trial, path).history
    assert [each.train_loss is None for each in history] == [True, False]
    assert history == state.history


def test_a_state_before_its_first_step_can_be_saved(trial: TrialConfig, tmp_path: Path) -> None:
    save_checkpoint(initial_state(trial, V), tmp_path / "checkpoint", trial.key)
    state = restored(trial, tmp_path / "checkpoint")
    assert state.step == 0
    assert state.best_val_loss == float("inf")
    assert list(run(state, trial)) == list(run(initial_state(trial, V), trial))


def test_time_spent_and_the_best_loss_come_back(trial: TrialConfig, tmp_path: Path) -> None:
    state = initial_state(trial, V)
    state.training_s, state.step = 12.5, 2
    state.history = [
        Evaluation(1, 1.5, 1.25, 1.25, 6, 1e6),
        Evaluation(2, 1.5, 1.75, 1.25, 12.5, 1e6),
    ]
    save_checkpoint(state, tmp_path / "checkpoint", trial.key)
    again = restored(trial, tmp_path / "checkpoint")
    assert (again.training_s, again.best_val_loss, again.step) == (12.5, 1.25, 2)
    assert again.history == state.history


def test_a_crash_before_the_rename_leaves_the_old_file(
    saved: Path, trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    state = restored(trial, saved)
    next(run(state, trial))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "replace"), (Path, "rename")):
            patch.setattr(owner, name, crash)
        for name in ("os.replace", "os.rename"):
            patch.setattr(name, crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(state, saved, trial.key)
    assert saved.read_bytes() == before
    save_checkpoint(state, saved, trial.key)
    assert restored(trial, saved).step == 4
    assert list(saved.parent.iterdir()) == [saved]


def test_content_is_whole_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename, seen = tmp_path / "new" / "file", Path.replace, []

    def spy(partial: Path, target: Path) -> Path:
        seen.append((partial.read_bytes(), partial.parent == target.parent, target.exists()))
        return rename(partial, target)

    monkeypatch.setattr(Path, "replace", spy)
    write_atomically(path, b"content")
    assert seen == [(b"content", True, False)]
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes(torch.randint(256, (500,), generator=stream(0, "x")).tolist()),
        lambda content: pickle.dumps({"step": 3}),
        lambda content: safetensors.torch.save({"x": torch.zeros(3)}),
        lambda content: safetensors.torch.save({"x": torch.zeros(3)}, {"state": "{"}),
        lambda content: safetensors.torch.save({"x": torch.zeros(3)}, {"state": "[]"}),
        lambda content: safetensors.torch.save({"x": torch.zeros(3)}, {"state": "{}"}),
    ],
    ids=[
        "empty",
        "four bytes",
        "half",
        "cut by a byte",
        "longer by a byte",
        "random bytes",
        "a pickle",
        "other tensors",
        "broken header",
        "a list for a header",
        "an empty header",
    ],
)
def test_a_damaged_file_is_refused(
    damage: Callable[[bytes], bytes], saved: Path, trial: TrialConfig
) -> None:
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        restored(trial, saved)


@pytest.mark.parametrize("lost", ["model.embed_VD", "optimizer.head.bias.step"])
def test_a_file_without_one_of_its_tensors_is_refused(
    lost: str, saved: Path, trial: TrialConfig
) -> None:
    rewrite(saved, lambda header, tensors: tensors.pop(lost), seal=True)
    with pytest.raises(CheckpointError, match=f"not a whole checkpoint.*{lost.rpartition('.')[2]}"):
        restored(trial, saved)


def test_a_random_stream_is_part_of_the_state_where_one_is_drawn_from(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial("bigram", max_steps=4, evaluation="published", eval_batches=2)
    state, path = initial_state(trial, V), tmp_path / "trial" / "checkpoint.safetensors"
    next(run(state, trial))
    save_checkpoint(state, path, trial.key)
    assert_equal_states(restored(trial, path), state)
    rewrite(path, lambda header, tensors: tensors.pop("random.batches"), seal=True)
    with pytest.raises(CheckpointError, match=r"not a whole checkpoint.*random\.batches"):
        restored(trial, path)


@pytest.mark.parametrize(
    "alter",
    [
        lambda header, tensors: header.update(step=3),
        lambda header, tensors: header["history"][0].update(val_loss=-1.0),
        lambda header, tensors: header.update(training_s=0.0),
        lambda header, tensors: tensors["model.embed_VD"].mul_(-1),
        lambda header, tensors: tensors.pop("model.embed_VD"),
        lambda header, tensors: tensors.update(extra=torch.zeros(1)),
    ],
)
def test_a_file_that_was_altered_is_refused(
    alter: Callable[[dict[str, Any], dict[str, Tensor]], object], saved: Path, trial: TrialConfig
) -> None:
    rewrite(saved, lambda header, tensors: None, seal=False)
    assert restored(trial, saved).step == 2
    rewrite(saved, alter, seal=False)
    with pytest.raises(CheckpointError, match="its content is not what was saved"):
        restored(trial, saved)


def test_a_checkpoint_with_earlier_names_of_the_losses_is_read(
    saved: Path, trial: TrialConfig
) -> None:
    """They were ``train_nats``, ``val_nats`` and ``best_val_nats``."""
    before = restored(trial, saved)

    def rename(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        assert "val_loss" in header["history"][0]
        header["history"] = [
            {name.replace("_loss", "_nats"): value for name, value in each.items()}
            for each in header["history"]
        ]

    rewrite(saved, rename, seal=True)
    assert b"best_val_nats" in saved.read_bytes()
    assert restored(trial, saved).history == before.history


def rewrite(
    path: Path,
    alter: Callable[[dict[str, Any], dict[str, Tensor]], object],
    seal: bool,
) -> None:
    """Change the content of a checkpoint; ``seal`` makes its sha256 agree with it."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    alter(header, tensors)
    if seal:
        header["sha256"] = sealed(header, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"state": json.dumps(header)}))


def sealed(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The sha256 of a checkpoint, written down independently: header, then names and bytes."""
    parts = [
        json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode()
    ]
    for name, tensor in sorted(tensors.items()):
        parts += [name.encode(), bytes(tensor.flatten().view(torch.uint8).tolist())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_a_file_that_cannot_be_read_or_held_is_not_called_damaged(
    saved: Path, trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (torch.OutOfMemoryError("no memory"), OSError(24, "Too many open files")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("trainables.persistence.checkpoint.safe_open", fail)
            with pytest.raises(type(error)):
                restored(trial, saved)
    assert restored(trial, saved).step == 2


def test_the_checkpoint_of_another_trial_is_refused(saved: Path, make_trial: MakeTrial) -> None:
    other = make_trial("attention", n_embd=4, max_steps=7, eval_every=2, batch_size=4)
    state = initial_state(other, V)
    with pytest.raises(CheckpointError, match=f"belongs to trial .*, not to {other.key}"):
        load_checkpoint(state, saved, other.key)
    assert state.step == 0
    assert_equal_states(state, initial_state(other, V))


def test_loading_unpickles_nothing(
    saved: Path, trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler"):
        monkeypatch.setattr(name, refuse)
    assert restored(trial, saved).step == 2
