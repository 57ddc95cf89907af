"""Durable trials that train together in one process. Knows no Ray."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from trainables.training.loop import Splits, TrainingDivergedError
from trainables.training.stack import NotStackableError, Stack, stack_shape
from trainables.worker.durable import DurableTrial, Progress

SAVED_AT_ONCE = 8  # members whose checkpoints take little time; more of them are saved less often

logger = logging.getLogger(__name__)

CameTo = Progress | TrainingDivergedError


class Pack:
    """Moves trials of one `stack_shape` on as a stack; one alone as it is, unless on a GPU."""

    def __init__(self, trials: Sequence[DurableTrial], splits: Splits) -> None:
        """Train nothing yet.

        Args:
            trials: one, or several of the same shape.
            splits: of their corpus, on the device.
        """
        self.trials = list(trials)  # those that are neither finished nor failed
        self._splits = splits
        self._is_told = False  # whether the past was told
        self._stack: Stack | None = None
        # A GPU waits for a step's launches: those of a stack are recorded.
        is_alone = len(trials) == 1 and not splits.train.is_cuda
        self._is_stacked = not is_alone and stack_shape(trials[0].member.trial) is not None

    def advance(self, within_s: float) -> list[tuple[DurableTrial, CameTo]]:
        """Tell the past at first, then train to the next evaluation or for so many seconds.

        Returns:
            What each trial that was not done came to.

        Raises:
            StorageError: a state cannot be written.
            NotStackableError: the trials cannot be trained together.
            Exception: of the trial that is alone; or what the trials cannot be trained together by.
        """
        told: list[tuple[DurableTrial, CameTo]]
        if not self._is_told:
            self._is_told = True
            told = [(trial, trial.begin()) for trial in self.trials]
        elif self._is_stacked:
            told = self._stacked(within_s)
        else:
            (trial,) = self.trials
            told = [(trial, trial.advance(within_s))]
        self.trials = [trial for trial, came_to in told if not _is_done(came_to)]
        return told

    def _stacked(self, within_s: float) -> list[tuple[DurableTrial, CameTo]]:
        if self._stack is None:
            try:
                self._stack = Stack([trial.member for trial in self.trials], self._splits)
            except NotStackableError as error:
                if len(self.trials) > 1:
                    raise
                logger.info("not stacked: %s", error)
                self._is_stacked = False
                return [(trial, trial.advance(within_s)) for trial in self.trials]
        with contextlib.ExitStack() as moving:
            for trial in self.trials:
                moving.enter_context(trial.moving())
            results = self._stack.advance(within_s)
        rarely = max(1.0, len(self.trials) / SAVED_AT_ONCE)
        return [
            (
                trial,
                result if isinstance(result, TrainingDivergedError) else trial.took(result, rarely),
            )
            for trial, result in zip(self.trials, results, strict=True)
        ]


def _is_done(came_to: CameTo) -> bool:
    return isinstance(came_to, TrainingDivergedError) or came_to.done
