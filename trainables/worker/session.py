"""One trial of a worker, with its files and its log. Knows no Ray."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass

from trainables.config import TrialConfig
from trainables.persistence.storage import StorageError, TrialFiles
from trainables.training.gpu_memory import is_out_of_memory
from trainables.training.loop import TrainingDivergedError
from trainables.worker.durable import DurableTrial, TrialProgress
from trainables.worker.reports import FailureKind, TrialFailure
from trainables.worker.trial_log import TrialLog, log_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaughtError:
    """The text of an error, without its frames, which would keep their tensors in memory."""

    kind: FailureKind
    reason: str  # type and message
    trace: str

    @staticmethod
    def of(error: Exception) -> CaughtError:
        """Describe an error."""
        kind = FailureKind.ERROR
        if isinstance(error, TrainingDivergedError):
            kind = FailureKind.DIVERGED
        elif is_out_of_memory(error):
            kind = FailureKind.OUT_OF_MEMORY
        trace = "".join(traceback.format_exception(error))
        return CaughtError(kind, f"{type(error).__name__}: {error}", trace)


class TrialSession:
    """A trial from when a worker opens it until it is done, paused or dropped."""

    def __init__(self, trial: TrialConfig, files: TrialFiles) -> None:
        self.trial, self.files = trial, files
        self.log = TrialLog(log_of(files.folder))
        self.durable: DurableTrial | None = None  # while it is trained
        self.is_done = False  # finished, or failed

    def on_progress(self, progress: TrialProgress) -> None:
        """Log the progress, and close a trial that is finished."""
        self.log.log_progress(progress)
        if progress.done:
            self.is_done, self.durable = True, None
            self._push_log()

    def on_failure(self, error: CaughtError) -> TrialFailure:
        """Log why the trial failed, close it, and return the report."""
        self.is_done = True
        self._drop(f"failed: {error.reason}\n{error.trace}")
        return TrialFailure(self.trial.key, error.kind, error.reason)

    def on_split(self, error: CaughtError) -> None:
        """Log why its pack is split; the trial can resume from its checkpoint."""
        self._drop(f"the pack is split: {error.reason}\n{error.trace}")

    def on_storage_error(self, error: StorageError) -> None:
        """Log that the state cannot be stored; the trial can resume from its checkpoint."""
        self.durable = None
        self.log.mark(f"stopped: {error}")

    def pause(self) -> None:
        """Save the trial if it is in training, so that another process can resume it."""
        if self.durable is None:
            return
        try:
            self.durable.pause()
            self.log.mark(f"paused at step {self.durable.step}")
        except StorageError as error:
            self.log.mark(f"paused without being saved: {error}")
            logger.warning("%s", error)
        self.durable = None
        self._push_log()

    def _drop(self, message: str) -> None:
        """Drop a state that may be in the middle of a step. This counts as no death of a worker."""
        if self.durable:
            self.durable.reset_start_count()
        self.log.mark(message)
        self.durable = None
        self._push_log()

    def _push_log(self) -> None:
        """Bring the end of the log to the storage, which has everything else already."""
        try:
            self.files.push()
        except StorageError as error:
            logger.warning("%s", error)
