"""A trial that another process can resume when the one that trains it dies. Knows no Ray.

Its folder, which `trainables.persistence.storage` stores, has two checkpoints, so that one is good
if the other is damaged:

    checkpoint.safetensors   the newest
    previous.safetensors     the one before it, until the trial is finished
    starts.json              the step at which the trial started last, and how often in a row
    artifacts/               weights, configuration, sample and losses by block at the end; log.txt
                             from the start
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.files import remove_partials, set_aside, write_atomically
from trainables.persistence.artifacts import first_samples, write_artifacts, write_blocks
from trainables.persistence.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainables.persistence.storage import CHECKPOINTS, StorageError, TrialFiles
from trainables.training.loop import Evaluation, Splits, TrainingState, advance, initial_state
from trainables.training.stack import Member

SAVE_S = 5.0  # of training, which a worker that dies loses at most, besides an evaluation
MAX_STARTS = 10  # in a row from the same step: then the trial itself kills its worker

logger = logging.getLogger(__name__)


class WorkerDiedError(RuntimeError):
    """`MAX_STARTS` workers in a row died before they saved any progress of this trial."""


@dataclass(frozen=True)
class TrialProgress:
    """Progress of a trial since the last call of `advance`."""

    step: int  # optimizer updates so far
    done: bool
    evaluations: list[Evaluation]  # new ones; all earlier ones if it resumes here
    resumed: bool = False  # true if it starts or resumes at this step
    notes: list[str] = field(default_factory=list)  # damaged files that were not used


class DurableTrial:
    """Trains a trial and saves it; a new object on the same folder resumes where it was saved."""

    def __init__(
        self,
        trial: TrialConfig,
        corpus: Corpus,
        splits: Splits,
        files: TrialFiles,
        device: torch.device,
    ) -> None:
        """Load the newest good checkpoint, if there is one.

        Args:
            trial: what to train.
            corpus: has the vocabulary.
            splits: of the corpus, on the device.
            files: of this trial alone; their folder is made if it is missing.
            device: where to train.

        Raises:
            StorageError: the folder cannot be written.
            WorkerDiedError: too many workers died since they started at this step.
        """
        self._trial = trial
        self.vocabulary = corpus.vocabulary  # characters in the order of their ids
        self._splits = splits
        self._files = files
        self._folder = files.folder
        self._newest, self._previous = (self._folder / name for name in CHECKPOINTS)
        self._starts = self._folder / "starts.json"
        self._notes: list[str] = []
        self._state = self._restored(corpus.vocab_size, device)
        self._saved = self._position
        self._saved_s = time.monotonic()
        self._has_begun = False
        self._is_whole = True  # false while steps are taken: such a state is never saved
        self.deaths = self._count_start()  # of workers that started at this step before

    @property
    def key(self) -> str:
        """Key of the trial."""
        return self._trial.key

    @property
    def step(self) -> int:
        """Optimizer updates so far."""
        return self._state.step

    @property
    def member(self) -> Member:
        """The trial and its state, for a stack to train."""
        return Member(self._trial, self._state)

    @property
    def finished(self) -> bool:
        """True if nothing is left to train."""
        return self._state.finished(self._trial.training)

    @property
    def _position(self) -> tuple[int, int]:
        """Its step and the number of evaluations: changes with each step and evaluation."""
        return self._state.step, len(self._state.history)

    def advance(self, within_s: float) -> TrialProgress:
        """Report where the trial resumes at first, then train to the next evaluation.

        Args:
            within_s: seconds of steps, after which training stops before the evaluation.

        Raises:
            StorageError: the state cannot be stored.
            TrainingDivergedError: a loss is not finite.
        """
        if not self._has_begun:
            return self.begin()
        if self.finished:  # but it could not be saved
            return self.on_steps(None)
        trial = self._trial
        with self.stepping():
            evaluation = advance(self._state, self._splits, trial.training, trial.seed, within_s)
        return self.on_steps(evaluation)

    def begin(self) -> TrialProgress:
        """Return where the trial resumes, with all earlier evaluations.

        Raises:
            StorageError: the artifacts of a finished trial cannot be stored.
        """
        self._has_begun = True
        if self.finished:
            self._finish()
        past = list(self._state.history)
        return TrialProgress(self._state.step, self.finished, past, True, self._notes)

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Context manager: take steps. After an error inside of it the state is never saved."""
        self._is_whole = False
        yield
        self._is_whole = True

    def on_steps(
        self, evaluation: Evaluation | None, interval: float = 1.0, sample: str | None = None
    ) -> TrialProgress:
        """Save the trial after some steps, if it is time, and return its progress.

        Args:
            evaluation: after these steps; None if there was none.
            interval: between two saves, in units of `SAVE_S`.
            sample: of the finished trial, from `samples_of`; None to draw it here.

        Raises:
            StorageError: the state cannot be stored.
        """
        if evaluation or self.finished or time.monotonic() - self._saved_s > interval * SAVE_S:
            self.save()
        if self.finished:
            self._finish(sample)
        return TrialProgress(self._state.step, self.finished, [evaluation] if evaluation else [])

    def save(self) -> None:
        """Write a checkpoint if the trial has moved since the last one, which is kept as well.

        Raises:
            StorageError: it cannot be stored; the existing checkpoints stay good.
        """
        if self._position == self._saved or not self._is_whole:
            return
        with self._storing():
            save_checkpoint(self._state, self._newest, self._trial.key, self._previous)
        self._saved = self._position
        self._saved_s = time.monotonic()

    def pause(self) -> None:
        """Save the trial, so that another process can resume it.

        Raises:
            StorageError: it cannot be stored.
        """
        self.save()
        self.reset_start_count()

    def reset_start_count(self) -> None:
        """Forget the earlier starts: this process did not die of the trial."""
        with contextlib.suppress(OSError), self._storing():
            self._starts.unlink(missing_ok=True)

    def _restored(self, vocab_size: int, device: torch.device) -> TrainingState:
        """Return the state of the newest good checkpoint; damaged ones are set aside."""
        for path in (self._newest, self._previous):
            state = initial_state(self._trial, vocab_size, device)
            if not path.exists():
                continue
            with self._storing():
                try:
                    load_checkpoint(state, path, self._trial.key)
                except CheckpointError as error:
                    message = str(error).replace(str(self._folder), self._files.where)
                    self._notes.append(f"{message}; kept as {set_aside(path).name}")
                else:
                    return state
        return initial_state(self._trial, vocab_size, device)

    def _count_start(self) -> int:
        """Count this start at the present step; return the earlier ones."""
        step, count = self._state.step, 0
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            before = json.loads(self._starts.read_text())
            count = int(before["count"]) if before["step"] == step else 0
        if count >= MAX_STARTS:
            self.reset_start_count()
            raise WorkerDiedError(f"the worker died {count} times in a row after step {step}")
        with self._storing():
            remove_partials(self._folder)
            content = json.dumps({"step": step, "count": count + 1})
            write_atomically(self._starts, content.encode())
        return count

    def _finish(self, sample: str | None = None) -> None:
        with self._storing():
            folder = self._folder / "artifacts"
            remove_partials(folder)
            model, training = self._state.model, self._trial.training
            write_artifacts(folder, self._trial, model, self.vocabulary, sample)
            write_blocks(folder, model, self._splits.validation, training.block_size)
            self._previous.unlink(missing_ok=True)
            self._starts.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """Context manager: change the folder, then bring the changes to the storage."""
        try:
            yield
            self._files.push()
        except StorageError:
            raise
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{self._folder} cannot be written: {reason}") from error


def samples_of(trials: Sequence[DurableTrial]) -> dict[str, str]:
    """Return the samples of finished trials of one `stack_shape`, by key.

    They are drawn together, which takes little longer than one; none is if that fails.
    """
    members = [trial.member for trial in trials]
    models, seeds = [m.state.model for m in members], [m.trial.seed for m in members]
    try:
        samples = first_samples(models, trials[0].vocabulary, seeds)
    except Exception as error:  # of a user's model, which then fails, or not, by itself
        logger.info("the samples of a pack are drawn one by one: %s", error)
        return {}
    return {trial.key: sample for trial, sample in zip(trials, samples, strict=True)}
