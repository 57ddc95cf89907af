"""A process that trains one trial after another, or packs of trials. Knows no Ray."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence

import torch

from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.persistence.storage import Storage, StorageError
from trainables.training.gpu_memory import is_out_of_memory
from trainables.training.loop import Splits
from trainables.worker.durable import DurableTrial, TrialProgress
from trainables.worker.heap import keep_between_steps
from trainables.worker.pack import MemberResult, Pack
from trainables.worker.reports import (
    FailureKind,
    PackSplit,
    SplitCause,
    TrialFailure,
    TrialReport,
    WorkerReport,
)
from trainables.worker.session import CaughtError, TrialSession
from trainables.worker.trial_log import Capture, forget_warnings
from trainables.worker.usage import Usage

MAX_REASON = 200  # characters of why a pack is split
SPLIT_DEATHS = 2  # in a row of its workers, after which the trials of a pack train apart

logger = logging.getLogger(__name__)


class Worker:
    """Trains the trials that are assigned to it, for some time at each call of `advance`."""

    def __init__(self, corpus: Corpus, storage: Storage, threads: int, gpu: bool) -> None:
        """Prepare what all trials of a process share.

        Args:
            corpus: what they train on.
            storage: where they store their state.
            threads: of torch.
            gpu: whether to train on the process's GPU, if torch can use it.
        """
        torch.set_num_threads(threads)
        keep_between_steps()
        self._corpus, self._storage = corpus, storage
        self._device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self._splits: Splits | None = None
        self._capture = Capture()
        self._assigned: list[TrialConfig] = []
        self._sessions: dict[str, TrialSession] = {}  # by key; opened at the first `advance`
        self._pack: Pack | None = None

    def assign(self, trials: Sequence[Mapping[str, object]]) -> None:
        """Pause the trials of before, and train these from now on.

        Args:
            trials: from `TrialConfig.to_dict`; one, or several of a `stack_shape`.
        """
        self.pause()
        self._assigned = [TrialConfig.from_dict(trial) for trial in trials]

    def advance(self, within_s: float) -> WorkerReport:
        """Report where the trials resume at first, then train for at most `within_s` seconds.

        Errors of trials and of their storage become part of the report.
        """
        try:
            for trial in self._assigned:
                if trial.key not in self._sessions:
                    files = self._storage.open_trial(trial.key)
                    self._sessions[trial.key] = TrialSession(trial, files)
            with self._capture.into([session.log for session in self._sessions.values()]):
                report = self._advance(within_s)
        except StorageError as error:
            for session in self._unfinished:
                session.on_storage_error(error)
            report = WorkerReport(done=True, storage_error=str(error))
        if report.done:
            self.pause()
        return report

    def pause(self) -> None:
        """Save the trials that are not done, and free their memory."""
        for session in self._sessions.values():
            session.pause()
            session.log.close()
        self._sessions, self._pack = {}, None  # a private folder goes with its session
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _unfinished(self) -> list[TrialSession]:
        return [session for session in self._sessions.values() if not session.is_done]

    def _advance(self, within_s: float) -> WorkerReport:
        reports: list[TrialReport | TrialFailure] = []
        caught = None
        try:
            if self._pack is None:
                reports += self._start()
            if self._is_dying:
                return WorkerReport(reports, done=True, split=PackSplit(SplitCause.DEATHS))
            if self._pack:
                reports += self._train(self._pack, within_s)
        except StorageError:
            raise
        except Exception as error:
            caught = CaughtError.of(error)
        # Here the error and the tensors of its frames are gone: the next trial has the memory.
        if caught and len(self._unfinished) > 1:
            return WorkerReport(reports, done=True, split=self._split(caught))
        if caught:
            reports.append(self._unfinished[0].on_failure(caught))
        return WorkerReport(reports, done=not self._unfinished)

    def _start(self) -> list[TrialFailure]:
        """Load all trials from their checkpoints into a pack; return those that fail."""
        forget_warnings()
        self._usage = Usage(self._device)
        # Here, where too little memory for the corpus is a failure of the trial.
        self._splits = self._splits or Splits.of(self._corpus, self._device, with_test=True)
        is_tested = all(trial.is_tested for trial in self._assigned)
        splits = self._splits if is_tested else self._splits.without_test
        failures = []
        beside = f", in a pack of {len(self._assigned)}" if len(self._assigned) > 1 else ""
        for session in self._sessions.values():
            place = f"process {os.getpid()} on {platform.node()}{beside}"
            session.log.mark(f"started by {place}: {hardware_tag(self._device)}")
            try:
                session.durable = DurableTrial(
                    session.trial, self._corpus, splits, session.files, self._device
                )
            except StorageError:
                raise
            except Exception as error:
                if is_out_of_memory(error) and len(self._sessions) > 1:
                    raise
                failures.append(session.on_failure(CaughtError.of(error)))
        if trials := [session.durable for session in self._unfinished if session.durable]:
            self._pack = Pack(trials, splits)
        return failures

    @property
    def _is_dying(self) -> bool:
        """True if one of several trials may be what kills their workers."""
        trials = self._pack.trials if self._pack else []
        return len(trials) > 1 and any(trial.deaths >= SPLIT_DEATHS for trial in trials)

    def _train(self, pack: Pack, within_s: float) -> list[TrialReport | TrialFailure]:
        with self._usage.counted():
            results = pack.advance(within_s)
        is_evaluated = any(
            isinstance(result, TrialProgress) and not result.resumed and result.evaluations
            for _, result in results
        )
        usage = self._usage.take() if is_evaluated else None
        return [self._report(trial, result, usage) for trial, result in results]

    def _report(
        self, trial: DurableTrial, result: MemberResult, usage: Mapping[str, float] | None
    ) -> TrialReport | TrialFailure:
        """Log a result and return its report; ``usage`` is None if nothing was evaluated."""
        session = self._sessions[trial.key]
        if isinstance(result, Exception):
            return session.on_failure(CaughtError.of(result))
        session.on_progress(result)
        return TrialReport(
            trial.key,
            result.step,
            result.done,
            result.evaluations,
            result.resumed,
            result.notes,
            hardware_tag(self._device),
            platform.node() if usage is not None else "",
            usage or {},
        )

    def _split(self, caught: CaughtError) -> PackSplit:
        for session in self._unfinished:
            session.on_split(caught)
        is_memory = caught.kind is FailureKind.OUT_OF_MEMORY
        cause = SplitCause.MEMORY if is_memory else SplitCause.SHAPE
        return PackSplit(cause, " ".join(caught.reason.split())[:MAX_REASON])


def hardware_tag(device: torch.device) -> str:
    """Return the hardware of a trial for a tag: the GPU's name, or CPU type, threads and host."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, torch threads: {torch.get_num_threads()}, {platform.node()}"
