"""A trial that outlives the process that trains it. Knows no Ray.

Its folder, which `trainables.persistence.storage` keeps, holds two checkpoints, so that one is good
whatever happens to the other:

    checkpoint.safetensors   the newest
    previous.safetensors     the one before it, until the trial is finished
    starts.json              where the trial was taken up last, and how often in a row
    artifacts/               what it leaves behind; log.txt from the start (by `trial_log`)
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.files import remove_partials, set_aside, write_atomically
from trainables.persistence.artifacts import write_artifacts
from trainables.persistence.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainables.persistence.storage import CHECKPOINTS, StorageError, TrialFiles
from trainables.training.loop import Evaluation, Splits, TrainingState, advance, initial_state
from trainables.training.stack import Member

SAVE_S = 5.0  # what a worker that dies loses at most, besides an evaluation
MAX_STARTS = 10  # in a row from the same step: a trial that kills its worker, not bad luck


class WorkerDiedError(RuntimeError):
    """The processes that trained this trial died again and again before they got any further."""


@dataclass(frozen=True)
class Progress:
    """What a trial came to since it was last asked."""

    step: int
    done: bool
    evaluations: list[Evaluation]  # those not told before; all past ones when it is taken up
    resumed: bool = False  # whether this says where it goes on from
    notes: list[str] = field(default_factory=list)  # what could not be trusted


class DurableTrial:
    """Moves a trial on and saves it; a new one of the same folder goes on where it was saved."""

    def __init__(
        self,
        trial: TrialConfig,
        corpus: Corpus,
        splits: Splits,
        files: TrialFiles,
        device: torch.device,
    ) -> None:
        """Bring the trial to its newest good checkpoint.

        Args:
            trial: what to train.
            corpus: gives the vocabulary.
            splits: of the corpus, on the device.
            files: of this trial alone; their folder is made if need be.
            device: where to train.

        Raises:
            StorageError: the folder cannot be written.
            WorkerDiedError: the trial was taken up at this step too often.
        """
        self._trial = trial
        self._vocabulary = corpus.vocabulary
        self._splits = splits
        self._files = files
        self._folder = files.folder
        self._newest, self._previous = (self._folder / name for name in CHECKPOINTS)
        self._starts = self._folder / "starts.json"
        self._notes: list[str] = []
        self._state = self._restored(corpus.vocab_size, device)
        self._saved = self._position
        self._saved_s = time.monotonic()
        self._told = False  # whether the past was told
        self._is_whole = True  # false while steps are taken: such a state is never saved
        self.deaths = self._count_start()  # of processes that took it up at this step before

    @property
    def key(self) -> str:
        """Of the trial."""
        return self._trial.key

    @property
    def step(self) -> int:
        """Optimizer updates so far."""
        return self._state.step

    @property
    def member(self) -> Member:
        """The trial and its state, for a stack to move on."""
        return Member(self._trial, self._state)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self._state.finished(self._trial.training)

    @property
    def _position(self) -> tuple[int, int]:
        """What moves as the trial does: its step, and how often it was evaluated."""
        return self._state.step, len(self._state.history)

    def advance(self, within_s: float) -> Progress:
        """Tell the past at first, then train to the next evaluation or for so many seconds.

        Raises:
            StorageError: the state cannot be written.
            TrainingDivergedError: a loss is not finite.
        """
        if not self._told:
            return self.begin()
        if self.finished:  # and could not be saved
            return self.took(None)
        trial = self._trial
        with self.moving():
            evaluation = advance(self._state, self._splits, trial.training, trial.seed, within_s)
        return self.took(evaluation)

    def begin(self) -> Progress:
        """Tell the past: where the trial goes on from.

        Raises:
            StorageError: what a finished trial leaves cannot be written.
        """
        self._told = True
        if self.finished:
            self._finish()
        past = list(self._state.history)
        return Progress(self._state.step, self.finished, past, True, self._notes)

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """While steps are taken, here or in a stack; what is left in the middle is never saved."""
        self._is_whole = False
        yield
        self._is_whole = True

    def took(self, evaluation: Evaluation | None, rarely: float = 1.0) -> Progress:
        """Save a trial that has moved, if it is time.

        Args:
            evaluation: what it came to, if it was evaluated.
            rarely: by how much the time between saves is longer.

        Raises:
            StorageError: the state cannot be written.
        """
        if evaluation or self.finished or time.monotonic() - self._saved_s > rarely * SAVE_S:
            self.save()
        if self.finished:
            self._finish()
        return Progress(self._state.step, self.finished, [evaluation] if evaluation else [])

    def save(self) -> None:
        """Save what is not saved yet, keeping the checkpoint before it.

        Raises:
            StorageError: it cannot be written; the checkpoints that there are stay good.
        """
        if self._position == self._saved or not self._is_whole:
            return
        with self._storing():
            save_checkpoint(self._state, self._newest, self._trial.key, self._previous)
        self._saved = self._position
        self._saved_s = time.monotonic()

    def leave(self) -> None:
        """Save, so that another process may go on; this one did not die.

        Raises:
            StorageError: it cannot be written.
        """
        self.save()
        self.forget_starts()

    def forget_starts(self) -> None:
        """Count from the beginning how often the trial is taken up."""
        with contextlib.suppress(OSError), self._storing():
            self._starts.unlink(missing_ok=True)

    def _restored(self, vocab_size: int, device: torch.device) -> TrainingState:
        """The state of the newest good checkpoint; the others are set aside."""
        for path in (self._newest, self._previous):
            state = initial_state(self._trial, vocab_size, device)
            if not path.exists():
                continue
            with self._storing():
                try:
                    load_checkpoint(state, path, self._trial.key)
                except CheckpointError as error:
                    said = str(error).replace(str(self._folder), self._files.where)
                    self._notes.append(f"{said}; kept as {set_aside(path).name}")
                else:
                    return state
        return initial_state(self._trial, vocab_size, device)

    def _count_start(self) -> int:
        step, count = self._state.step, 0
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            before = json.loads(self._starts.read_text())
            count = int(before["count"]) if before["step"] == step else 0
        if count >= MAX_STARTS:
            self.forget_starts()
            raise WorkerDiedError(f"the worker died {count} times in a row after step {step}")
        with self._storing():
            remove_partials(self._folder)
            content = json.dumps({"step": step, "count": count + 1})
            write_atomically(self._starts, content.encode())
        return count

    def _finish(self) -> None:
        with self._storing():
            folder = self._folder / "artifacts"
            remove_partials(folder)
            write_artifacts(folder, self._trial, self._state.model, self._vocabulary)
            self._previous.unlink(missing_ok=True)
            self._starts.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """What is done to the folder meanwhile is done to the storage after it."""
        try:
            yield
            self._files.push()
        except StorageError:
            raise
        except OSError as error:
            why = error.strerror or error
            raise StorageError(f"{self._folder} cannot be written: {why}") from error
