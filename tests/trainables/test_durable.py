"""A trial whose process dies, at any moment, ends as one that was left alone."""

import errno
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model_cases import one_of_each_variant
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.files import set_aside
from trainables.persistence import artifacts
from trainables.persistence.artifacts import load_model
from trainables.persistence.checkpoint import load_checkpoint, save_checkpoint
from trainables.persistence.storage import StorageError, TrialFiles
from trainables.training.loop import (
    Evaluation,
    Splits,
    TrainingDivergedError,
    TrainingState,
    advance,
    initial_state,
    train,
)
from trainables.worker import durable
from trainables.worker.durable import (
    MAX_STARTS,
    DurableTrial,
    TrialProgress,
    WorkerDiedError,
)

MakeTrial = Callable[..., TrialConfig]
CORPUS = tokenise("verse", "to be or not to be\n" * 30)
CPU = torch.device("cpu")
SPLITS = Splits.of(CORPUS, CPU)
NEWEST, PREVIOUS = "checkpoint.safetensors", "previous.safetensors"
AFTER_EACH_STEP, AT_EVALUATIONS = -1.0, math.inf  # values of SAVE_S

every_evaluation = pytest.mark.parametrize("evaluation", ["exact", "sampled", "published"])


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "SAMPLE_CHARACTERS", 5)


def resume(trial: TrialConfig, folder: Path) -> DurableTrial:
    return DurableTrial(trial, CORPUS, SPLITS, TrialFiles(folder), CPU)


def finish(resumed: DurableTrial, within_s: float = math.inf) -> list[TrialProgress]:
    """What each call reports, until the trial is done."""
    reports = [resumed.advance(within_s)]
    while not reports[-1].done:
        reports.append(resumed.advance(within_s))
    return reports


def reported_steps(reports: list[TrialProgress]) -> list[int]:
    """The steps of the evaluations, in the order in which they were reported."""
    return [evaluation.step for progress in reports for evaluation in progress.evaluations]


def losses(history: list[Evaluation]) -> list[Evaluation]:
    """The evaluations, without what the clock says."""
    return [replace(each, training_s=0, tokens_per_s=0) for each in history]


def undisturbed(trial: TrialConfig) -> TrainingState:
    """Trained in one go, and never saved."""
    state = initial_state(trial, CORPUS.vocab_size)
    list(train(state, SPLITS, trial.training, trial.seed))
    return state


def weights(state: TrainingState) -> dict[str, Tensor]:
    return state.model.state_dict()


def checkpoint(trial: TrialConfig, path: Path) -> TrainingState:
    state = initial_state(trial, CORPUS.vocab_size)
    load_checkpoint(state, path, trial.key)
    return state


def assert_ended_as(expected: TrainingState, trial: TrialConfig, folder: Path) -> None:
    """The finished trial in a folder has these losses and weights, bit for bit."""
    ended = checkpoint(trial, folder / NEWEST)
    assert losses(ended.history) == losses(expected.history)
    assert weights(ended).keys() == weights(expected).keys()
    assert all(
        torch.equal(value, weights(ended)[name]) for name, value in weights(expected).items()
    )
    left_behind = load_model(folder / "artifacts")[0].state_dict()
    assert all(
        torch.equal(value, left_behind[name]) for name, value in expected.model.state_dict().items()
    )


@pytest.fixture
def trial(make_trial: MakeTrial) -> TrialConfig:
    return make_trial("attention", n_embd=4, max_steps=6, eval_every=2, batch_size=4)


@pytest.fixture
def folder(trial: TrialConfig, tmp_path: Path) -> Path:
    """Of the trial after its second evaluation: saved at step 4, and before that at step 2."""
    died = resume(trial, tmp_path / "trial")
    for _ in range(3):
        died.advance(math.inf)
    assert checkpoint(trial, tmp_path / "trial" / PREVIOUS).step == 2
    assert checkpoint(trial, tmp_path / "trial" / NEWEST).step == 4
    return tmp_path / "trial"


# Whenever it is abandoned, it ends as if it had not been.


@one_of_each_variant
@every_evaluation
@pytest.mark.parametrize(
    "save_s", [AFTER_EACH_STEP, AT_EVALUATIONS], ids=["each step", "evaluations"]
)
def test_a_trial_that_is_abandoned_at_any_moment_ends_as_an_undisturbed_one(
    variant: str,
    settings: dict[str, Any],
    evaluation: str,
    save_s: float,
    make_trial: MakeTrial,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable, "SAVE_S", save_s)
    trial = make_trial(
        variant,
        evaluation=evaluation,
        eval_batches=3,
        max_steps=6,
        eval_every=2,
        batch_size=4,
        learning_rate=0.05,
        **settings,
    )
    expected = undisturbed(trial)
    calls = finish(resume(trial, tmp_path / "whole"), within_s=0)
    for moment in range(len(calls) + 1):
        folder = tmp_path / str(moment)
        died = resume(trial, folder)
        before = [died.advance(within_s=0) for _ in range(moment)]
        saved = [each for each in before if save_s == AFTER_EACH_STEP or each.evaluations]
        reports = finish(resume(trial, folder), within_s=0)
        assert reports[0].resumed
        assert reports[0].step == (saved[-1].step if saved else 0)
        assert reported_steps(reports) == [each.step for each in expected.history]
        assert_ended_as(expected, trial, folder)


@every_evaluation
def test_a_trial_that_dies_after_every_step_still_comes_to_its_end(
    evaluation: str, make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "SAVE_S", AFTER_EACH_STEP)
    trial = make_trial(max_steps=20, eval_every=3, batch_size=4, evaluation=evaluation)
    lives = 0
    done = False
    while not done:
        alive = resume(trial, tmp_path)
        done = alive.advance(within_s=0).done or alive.advance(within_s=0).done
        lives += 1
    assert lives == 20
    assert_ended_as(undisturbed(trial), trial, tmp_path)


@one_of_each_variant
@every_evaluation
def test_calls_of_one_step_each_give_the_same_curve(
    variant: str,
    settings: dict[str, Any],
    evaluation: str,
    make_trial: MakeTrial,
    tmp_path: Path,
) -> None:
    trial = make_trial(
        variant, max_steps=7, eval_every=3, batch_size=4, evaluation=evaluation, **settings
    )
    expected = undisturbed(trial)
    reports = finish(resume(trial, tmp_path), within_s=0)
    assert losses([each for progress in reports for each in progress.evaluations]) == losses(
        expected.history
    )
    assert_ended_as(expected, trial, tmp_path)
    steps = [progress.step for progress in reports[1:]]
    first = 0 if evaluation == "published" or variant == "count" else 1
    assert steps == list(range(first, expected.step + 1))  # one evaluation or one step a call


def test_steps_that_fit_into_a_time_lead_to_the_next_evaluation_and_not_further(
    trial: TrialConfig,
) -> None:
    state = initial_state(trial, CORPUS.vocab_size)
    for step, evaluated in [(1, False), (2, True), (3, False), (4, True)]:
        said = advance(state, SPLITS, trial.training, trial.seed, within_s=0)
        assert (state.step, said is not None) == (step, evaluated)
    said = advance(state, SPLITS, trial.training, trial.seed, within_s=1e9)
    assert said is state.last
    assert state.step == 6


def test_a_loss_that_is_not_finite_has_its_step_whatever_the_calls(make_trial: MakeTrial) -> None:
    trial = make_trial("factorized", n_embd=4, max_steps=50, eval_every=50, learning_rate=1e30)

    def steps(within_s: float) -> None:
        state = initial_state(trial, CORPUS.vocab_size)
        for _ in range(50):
            advance(state, SPLITS, trial.training, trial.seed, within_s)

    with pytest.raises(TrainingDivergedError, match=r"at step \d+$") as at_once:
        steps(within_s=math.inf)
    with pytest.raises(TrainingDivergedError, match=f"^{at_once.value}$"):
        steps(within_s=0)


def test_a_trial_that_is_left_goes_on_from_that_very_step(
    trial: TrialConfig, tmp_path: Path
) -> None:
    left = resume(trial, tmp_path)
    for _ in range(4):
        left.advance(within_s=0)  # the report, and three steps
    left.pause()
    assert checkpoint(trial, tmp_path / NEWEST).step == 3
    assert finish(resume(trial, tmp_path))[0].step == 3
    assert_ended_as(undisturbed(trial), trial, tmp_path)


def test_leaving_a_finished_trial_changes_nothing(trial: TrialConfig, folder: Path) -> None:
    ended = resume(trial, folder)
    finish(ended)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ended.pause()
    ended.save()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# What it tells.


def test_a_new_trial_tells_that_it_starts(trial: TrialConfig, tmp_path: Path) -> None:
    first, second, *_ = finish(resume(trial, tmp_path))
    assert first == TrialProgress(step=0, done=False, evaluations=[], resumed=True, notes=[])
    assert (second.step, second.resumed) == (2, False)


def test_a_trial_that_is_taken_up_tells_its_past_once(trial: TrialConfig, folder: Path) -> None:
    past, *rest = finish(resume(trial, folder))
    assert (past.step, past.done, past.resumed, past.notes) == (4, False, True, [])
    assert losses(past.evaluations) == losses(undisturbed(trial).history[:2])
    assert reported_steps(rest) == [6]
    assert not any(progress.resumed for progress in rest)


def test_a_finished_trial_tells_its_past_and_that_it_is_done(
    trial: TrialConfig, folder: Path
) -> None:
    finish(resume(trial, folder))
    (past,) = finish(resume(trial, folder))
    assert (past.step, past.done, past.resumed) == (6, True, True)
    assert losses(past.evaluations) == losses(undisturbed(trial).history)


def test_the_time_that_was_spent_is_not_lost(trial: TrialConfig, folder: Path) -> None:
    before = checkpoint(trial, folder / NEWEST).history
    reports = finish(resume(trial, folder))
    assert reports[0].evaluations == before
    assert reports[-1].evaluations[0].training_s > before[-1].training_s


# What it leaves behind.


def test_a_finished_trial_has_one_checkpoint_and_its_artifacts(
    trial: TrialConfig, folder: Path
) -> None:
    finish(resume(trial, folder))
    assert {path.name for path in folder.iterdir()} == {NEWEST, "artifacts"}


def test_a_finished_trial_that_died_before_its_artifacts_were_written_gets_them(
    trial: TrialConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_artifacts", die)
        with pytest.raises(KeyboardInterrupt):
            finish(resume(trial, folder))
    assert checkpoint(trial, folder / NEWEST).step == 6
    assert not (folder / "artifacts").exists()
    (progress,) = finish(resume(trial, folder))
    assert progress.done
    assert_ended_as(undisturbed(trial), trial, folder)
    assert {path.name for path in folder.iterdir()} == {NEWEST, "artifacts"}


def test_files_that_a_dead_process_did_not_finish_are_removed(
    trial: TrialConfig, folder: Path
) -> None:
    for name in (f".{NEWEST}.123.partial", ".starts.json.4.partial"):
        (folder / name).write_bytes(b"half")
    resume(trial, folder)
    assert {path.name for path in folder.iterdir()} == {NEWEST, PREVIOUS, "starts.json"}


# Damage.


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(part: float) -> Callable[[bytes], bytes]:
    """Change one bit, so far into the tensors: they follow a header, whose length comes first."""

    def flipped(content: bytes) -> bytes:
        damaged = bytearray(content)
        start = 8 + int.from_bytes(content[:8], "little")
        damaged[start + int(part * (len(content) - start - 1))] ^= 1
        return bytes(damaged)

    return flipped


def foreign(trial: TrialConfig, make_trial: MakeTrial, path: Path) -> bytes:
    """A good checkpoint at step 0 of the same trial from another seed."""
    other = make_trial(**trial.flat | {"seed": trial.seed + 1})
    save_checkpoint(initial_state(other, CORPUS.vocab_size), path, other.key)
    return path.read_bytes()


damages = pytest.mark.parametrize(
    "damage",
    [cut, flip(0), flip(0.5), flip(1), lambda content: b"", None],
    ids=["cut", "first bit", "a bit in the middle", "last bit", "empty", "of another trial"],
)
Damage = Callable[[bytes], bytes] | None


@pytest.fixture
def damaged(trial: TrialConfig, make_trial: MakeTrial, tmp_path: Path) -> Callable[..., bytes]:
    """Damages a file, and returns what it holds then."""

    def do(path: Path, damage: Damage = cut) -> bytes:
        if damage is None:
            content = foreign(trial, make_trial, tmp_path / "foreign")
        else:
            content = damage(path.read_bytes())
        path.write_bytes(content)
        return content

    return do


@damages
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(
    damage: Damage, damaged: Callable[..., bytes], trial: TrialConfig, folder: Path
) -> None:
    previous = (folder / PREVIOUS).read_bytes()
    content = damaged(folder / NEWEST, damage)
    resumed = resume(trial, folder)
    assert (folder / PREVIOUS).read_bytes() == previous
    reports = finish(resumed)
    (note,) = reports[0].notes
    assert str(folder / NEWEST) in note
    assert note.endswith("kept as checkpoint.safetensors.unusable-1")
    assert reports[0].step == 2
    assert reported_steps(reports) == [2, 4, 6]
    assert_ended_as(undisturbed(trial), trial, folder)
    assert (folder / "checkpoint.safetensors.unusable-1").read_bytes() == content


@damages
def test_a_trial_without_a_good_checkpoint_starts_over_and_both_are_kept(
    damage: Damage, damaged: Callable[..., bytes], trial: TrialConfig, folder: Path
) -> None:
    contents = {name: damaged(folder / name, damage) for name in (NEWEST, PREVIOUS)}
    reports = finish(resume(trial, folder))
    assert reports[0].step == 0
    assert reports[0].evaluations == []
    assert [note.rpartition(" ")[2] for note in reports[0].notes] == [
        "checkpoint.safetensors.unusable-1",
        "previous.safetensors.unusable-1",
    ]
    assert reported_steps(reports) == [2, 4, 6]
    assert_ended_as(undisturbed(trial), trial, folder)
    for name, content in contents.items():
        assert (folder / f"{name}.unusable-1").read_bytes() == content


def test_a_damaged_previous_checkpoint_is_not_asked_for(
    damaged: Callable[..., bytes], trial: TrialConfig, folder: Path
) -> None:
    damaged(folder / PREVIOUS)
    progress = resume(trial, folder).advance(math.inf)
    assert (progress.step, progress.notes) == (4, [])


def test_a_second_damage_has_the_next_number(
    damaged: Callable[..., bytes], trial: TrialConfig, folder: Path
) -> None:
    first = damaged(folder / NEWEST)
    again = resume(trial, folder)
    for _ in range(2):
        again.advance(math.inf)
    second = damaged(folder / NEWEST, flip(0.5))
    progress = resume(trial, folder).advance(math.inf)
    assert progress.step == 2
    assert "unusable-2" in progress.notes[0]
    assert (folder / "checkpoint.safetensors.unusable-1").read_bytes() == first
    assert (folder / "checkpoint.safetensors.unusable-2").read_bytes() == second


def test_numbers_of_files_that_are_set_aside_go_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for number in range(1, 13):
        path.write_text(str(number))
        assert set_aside(path) == tmp_path / f"file.unusable-{number}"
    texts = {kept.name.rpartition("-")[2]: kept.read_text() for kept in tmp_path.iterdir()}
    assert texts == {str(number): str(number) for number in range(1, 13)}


# A trial that kills its worker.


def starts(trial: TrialConfig, folder: Path, count: int) -> DurableTrial:
    """Take a trial up so often; each time but the last its worker died at once."""
    return [resume(trial, folder) for _ in range(count)][-1]


def test_a_trial_that_is_taken_up_at_one_step_again_and_again_is_given_up(
    trial: TrialConfig, folder: Path
) -> None:
    progress = starts(trial, folder, MAX_STARTS).advance(math.inf)
    assert (progress.step, progress.resumed) == (4, True)  # it was progress, and got no further
    with pytest.raises(WorkerDiedError, match=f"died {MAX_STARTS} times in a row after step 4"):
        resume(trial, folder)


def test_a_retry_counts_anew(trial: TrialConfig, tmp_path: Path) -> None:
    for _ in range(2):
        starts(trial, tmp_path, MAX_STARTS)
        with pytest.raises(WorkerDiedError, match="after step 0"):
            resume(trial, tmp_path)


def test_progress_counts_anew(trial: TrialConfig, folder: Path) -> None:
    moving = starts(trial, folder.parent / "new", MAX_STARTS)
    for step in (0, 2):
        assert moving.advance(math.inf).step == step
    starts(trial, folder.parent / "new", MAX_STARTS)
    with pytest.raises(WorkerDiedError, match="after step 2"):
        resume(trial, folder.parent / "new")


def test_a_trial_that_was_left_counts_anew(trial: TrialConfig, folder: Path) -> None:
    starts(trial, folder, MAX_STARTS).pause()
    starts(trial, folder, MAX_STARTS)
    with pytest.raises(WorkerDiedError):
        resume(trial, folder)


def test_a_finished_trial_is_taken_up_as_often_as_one_likes(
    trial: TrialConfig, folder: Path
) -> None:
    finish(resume(trial, folder))
    for _ in range(MAX_STARTS + 2):
        assert resume(trial, folder).advance(math.inf).done


def test_a_finished_trial_that_kills_its_worker_before_it_says_so_is_given_up(
    trial: TrialConfig, folder: Path
) -> None:
    finish(resume(trial, folder))
    starts(trial, folder, MAX_STARTS)
    with pytest.raises(WorkerDiedError, match="after step 6"):
        resume(trial, folder)


@pytest.mark.parametrize(
    "content", [b"", b'{"step": 4, "cou', b"[]", b"{}", b"null", b"\xff", b'{"count": 99}']
)
def test_a_damaged_count_starts_over(content: bytes, trial: TrialConfig, folder: Path) -> None:
    (folder / "starts.json").write_bytes(content)
    starts(trial, folder, MAX_STARTS)
    assert json.loads((folder / "starts.json").read_text()) == {"step": 4, "count": MAX_STARTS}


# A disk that takes nothing, and a process that dies while it writes.


def die(*_: object) -> None:
    raise KeyboardInterrupt


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_saved_stays_when_the_disk_is_full(
    trial: TrialConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starving = resume(trial, folder)
    for _ in range(2):
        starving.advance(within_s=0)  # the report, and one step
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        for _ in range(2):
            with pytest.raises(StorageError, match=r"trial cannot be written: No space left"):
                starving.pause()
        with pytest.raises(StorageError):
            starving.advance(math.inf)
        with pytest.raises(StorageError):
            resume(trial, folder)
    assert not list(folder.glob(".*.partial"))
    reports = finish(resume(trial, folder))
    assert (reports[0].step, reports[0].notes) == (4, [])
    assert_ended_as(undisturbed(trial), trial, folder)


def test_a_trial_can_be_saved_when_there_is_space_again(
    trial: TrialConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starving = resume(trial, folder)
    for _ in range(2):
        starving.advance(within_s=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StorageError):
            starving.save()
    starving.save()
    assert checkpoint(trial, folder / NEWEST).step == 5
    assert checkpoint(trial, folder / PREVIOUS).step == 4


def test_artifacts_that_cannot_be_written_are_written_later(
    trial: TrialConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_artifacts", no_space)
        with pytest.raises(StorageError):
            finish(resume(trial, folder))
        with pytest.raises(StorageError):
            resume(trial, folder).advance(math.inf)
    assert resume(trial, folder).advance(math.inf).done
    assert_ended_as(undisturbed(trial), trial, folder)


def test_a_folder_that_cannot_be_made_is_a_matter_of_storage(
    trial: TrialConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file cannot be written: File exists"):
        resume(trial, tmp_path / "file")


@pytest.mark.parametrize("nth", range(5))  # two of the checkpoints, three of the artifacts
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_death_at_any_rename_loses_nothing_that_was_saved(
    nth: int, is_done: bool, trial: TrialConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = resume(trial, folder)
    dying.advance(math.inf)
    rename, renamed = Path.replace, []

    def rename_and_die(source: Path, target: Path) -> Path:
        renamed.append(target)
        if len(renamed) <= nth or is_done:
            rename(source, target)
        if len(renamed) > nth:
            raise KeyboardInterrupt
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename_and_die)
        with pytest.raises(KeyboardInterrupt):
            dying.advance(math.inf)
    reports = finish(resume(trial, folder))
    assert reports[0].step >= 4
    assert reports[0].notes == []
    assert reported_steps(reports) == [2, 4, 6]
    assert_ended_as(undisturbed(trial), trial, folder)
    assert {path.name for path in folder.iterdir()} == {NEWEST, "artifacts"}
