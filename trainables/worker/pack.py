"""Durable trials that train together in one process. Knows no Ray."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from trainables.training.loop import Splits, TrainingDivergedError
from trainables.training.stack import NotStackableError, Stack, stack_shape
from trainables.worker.durable import DurableTrial, TrialProgress, samples_of

SAVED_AT_ONCE = 8  # members whose checkpoints take little time; larger packs are saved less often

logger = logging.getLogger(__name__)

MemberResult = TrialProgress | TrainingDivergedError


class Pack:
    """Trains trials of one `stack_shape` as a stack; a single trial on a CPU without one."""

    def __init__(self, trials: Sequence[DurableTrial], splits: Splits) -> None:
        """Train nothing yet.

        Args:
            trials: one, or several of the same shape.
            splits: of their corpus, on the device.
        """
        self.trials = list(trials)  # those that are neither finished nor failed
        self._splits = splits
        self._has_begun = False
        self._stack: Stack | None = None
        # A GPU waits for a step's launches: those of a stack are recorded.
        is_alone = len(trials) == 1 and not splits.train.is_cuda
        self._is_stacked = not is_alone and stack_shape(trials[0].member.trial) is not None

    def advance(self, within_s: float) -> list[tuple[DurableTrial, MemberResult]]:
        """Report where the trials resume at first, then train to the next evaluation.

        Args:
            within_s: seconds of steps, after which training stops before the evaluation.

        Returns:
            The result of each trial that was not done before.

        Raises:
            StorageError: a state cannot be stored.
            NotStackableError: the trials cannot be trained together.
            Exception: any other of a trial that is alone, or of trials that train together.
        """
        results: list[tuple[DurableTrial, MemberResult]]
        if not self._has_begun:
            self._has_begun = True
            results = [(trial, trial.begin()) for trial in self.trials]
        elif self._is_stacked:
            results = self._advance_stack(within_s)
        else:
            (trial,) = self.trials
            results = [(trial, trial.advance(within_s))]
        self.trials = [trial for trial, result in results if not _is_done(result)]
        return results

    def _advance_stack(self, within_s: float) -> list[tuple[DurableTrial, MemberResult]]:
        if self._stack is None:
            try:
                self._stack = Stack([trial.member for trial in self.trials], self._splits)
            except NotStackableError as error:
                if len(self.trials) > 1:
                    raise
                logger.info("not stacked: %s", error)
                self._is_stacked = False
                return [(trial, trial.advance(within_s)) for trial in self.trials]
        with contextlib.ExitStack() as stepping:
            for trial in self.trials:
                stepping.enter_context(trial.stepping())
            results = self._stack.advance(within_s)
        finished = [trial for trial in self.trials if trial.finished]
        samples = samples_of(finished) if len(finished) > 1 else {}
        interval = max(1.0, len(self.trials) / SAVED_AT_ONCE)
        return [
            (
                trial,
                result
                if isinstance(result, TrainingDivergedError)
                else trial.on_steps(result, interval, samples.get(trial.key)),
            )
            for trial, result in zip(self.trials, results, strict=True)
        ]


def _is_done(result: MemberResult) -> bool:
    return isinstance(result, TrainingDivergedError) or result.done
