"""What a worker does with the trials that it is given: one, or a pack. Knows no Ray."""

from __future__ import annotations

import logging
import os
import platform
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.persistence.storage import Storage, StorageError, TrialFiles
from trainables.training.gpu_memory import is_out_of_memory
from trainables.training.loop import Splits
from trainables.worker.durable import DurableTrial, Progress
from trainables.worker.heap import keep_between_steps
from trainables.worker.pack import CameTo, Pack
from trainables.worker.trial_log import Capture, TrialLog, forget_warnings, log_of
from trainables.worker.usage import Usage

SAID = 200  # characters of why a pack is split
SPLIT_DEATHS = 2  # after so many deaths in a row the trials of a pack train apart

logger = logging.getLogger(__name__)

Report = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """What is left of an error: itself it would keep the memory of what it went through."""

    reason: str
    trace: str
    is_out_of_memory: bool

    @staticmethod
    def of(error: Exception) -> Failure:
        trace = "".join(traceback.format_exception(error))
        return Failure(f"{type(error).__name__}: {error}", trace, is_out_of_memory(error))


class Carried:
    """A trial that a worker was given, with its files and its log."""

    def __init__(self, trial: TrialConfig, files: TrialFiles) -> None:
        self.trial, self.files = trial, files
        self.log = TrialLog(log_of(files.folder))
        self.durable: DurableTrial | None = None  # while it is trained
        self.is_done = False  # finished, or failed

    def came_to(self, progress: Progress) -> None:
        """Log it."""
        self.log.tell(progress)
        if progress.done:
            self.is_done, self.durable = True, None
            self._push_log()

    def failed(self, failure: Failure) -> None:
        """Log it."""
        self.is_done = True
        self._drop(f"failed: {failure.reason}\n{failure.trace}")

    def split(self, failure: Failure) -> None:
        """Log why its pack cannot go on; it can, from what is saved."""
        self._drop(f"the pack is split: {failure.reason}\n{failure.trace}")

    def leave(self) -> None:
        """Save it, so that another process may go on."""
        if self.durable is None:
            return
        try:
            self.durable.leave()
            self.log.mark(f"left at step {self.durable.step}")
        except StorageError as error:
            self.log.mark(f"left, and not saved: {error}")
            logger.warning("%s", error)
        self.durable = None
        self._push_log()

    def _drop(self, said: str) -> None:
        """Let go of a state that may be amid a step; it is no death of this process."""
        if self.durable:
            self.durable.forget_starts()
        self.log.mark(said)
        self.durable = None
        self._push_log()

    def _push_log(self) -> None:
        """Bring the end of the log to the storage; what counts is there already."""
        try:
            self.files.push()
        except StorageError as error:
            logger.warning("%s", error)


class Worker:
    """Trains what it is given, for a while at each call, and says what became of each trial."""

    def __init__(self, corpus: Corpus, storage: Storage, threads: int, gpu: bool) -> None:
        """Take what all trials of a process share.

        Args:
            corpus: what they train on.
            storage: where they keep their state.
            threads: of torch.
            gpu: whether to train on the process's GPU, if torch can use it.
        """
        torch.set_num_threads(threads)
        keep_between_steps()
        self._corpus, self._storage = corpus, storage
        self._device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self._splits: Splits | None = None
        self._capture = Capture()
        self._given: list[TrialConfig] = []
        self._carried: dict[str, Carried] = {}  # by key; from when they are taken up
        self._pack: Pack | None = None

    def take(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Turn to other trials; those before are left.

        Args:
            trials: from `TrialConfig.to_dict`; one, or several of a `stack_shape`.
        """
        self.leave()
        self._given = [TrialConfig.from_dict(trial) for trial in trials]

    def advance(self, within_s: float) -> Report:
        """Train for a while.

        Returns:
            ``trials``: a report for each that was not done before. It has its ``key`` and

            * ``step``, ``evaluations``, ``resumed``, ``notes``, ``done`` and ``hardware``; or
            * ``failure``: why it failed by itself, so that it is not tried again as one whose
              worker died is, and ``out_of_memory``; the traceback is in its log.

            ``done``: whether no more is to be done with them here. Trials that are not done then
            were left because of ``storage``, why states cannot be kept; or because of ``split``,
            why they cannot be trained together: "memory", "shape" or "deaths"; of the first two the
            ``reason`` in words.
        """
        try:
            for trial in self._given:
                if trial.key not in self._carried:
                    files = self._storage.open_trial(trial.key)
                    self._carried[trial.key] = Carried(trial, files)
            with self._capture.into([one.log for one in self._carried.values()]):
                report = self._advanced(within_s)
        except StorageError as error:
            for one in self._open:
                one.durable = None
                one.log.mark(f"stopped: {error}")
            report = {"trials": [], "storage": str(error), "done": True}
        if report["done"]:
            self.leave()
        return report

    def leave(self) -> None:
        """Save trials that are left before their end, and give their memory back."""
        for one in self._carried.values():
            one.leave()
            one.log.close()
        self._carried, self._pack = {}, None  # a private folder goes with it
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _open(self) -> list[Carried]:
        return [one for one in self._carried.values() if not one.is_done]

    def _advanced(self, within_s: float) -> Report:
        reports: list[Report] = []
        failure = None
        try:
            if self._pack is None:
                reports += self._taken_up()
            if self._is_dying:
                return {"trials": reports, "split": "deaths", "done": True}
            if self._pack:
                with self._usage.counted():
                    told = self._pack.advance(within_s)
                use = self._use_of(told)
                reports += [self._report(*pair, use) for pair in told]
        except StorageError:
            raise
        except Exception as error:
            failure = Failure.of(error)
        # Here the error is gone, and with it what its frames held: the next trial has the memory.
        if failure and len(self._open) > 1:
            for one in self._open:
                one.split(failure)
            split = "memory" if failure.is_out_of_memory else "shape"
            reason = " ".join(failure.reason.split())[:SAID]
            return {"trials": reports, "split": split, "reason": reason, "done": True}
        if failure:
            reports.append(self._failed(self._open[0], failure))
        return {"trials": reports, "done": not self._open}

    def _taken_up(self) -> list[Report]:
        """Bring all trials to where they stand; reports of those that cannot be."""
        forget_warnings()
        self._usage = Usage(self._device)
        # Here, where it is a trial's failure that the GPU has no room even for these.
        self._splits = self._splits or Splits.of(self._corpus, self._device)
        reports = []
        beside = f", in a pack of {len(self._given)}" if len(self._given) > 1 else ""
        for one in self._carried.values():
            place = f"process {os.getpid()} on {platform.node()}{beside}"
            one.log.mark(f"taken up by {place}: {hardware(self._device)}")
            try:
                one.durable = DurableTrial(
                    one.trial, self._corpus, self._splits, one.files, self._device
                )
            except StorageError:
                raise
            except Exception as error:
                if is_out_of_memory(error) and len(self._carried) > 1:
                    raise
                reports.append(self._failed(one, Failure.of(error)))
        if trials := [one.durable for one in self._open if one.durable]:
            self._pack = Pack(trials, self._splits)
        return reports

    @property
    def _is_dying(self) -> bool:
        """Whether one of several trials may be what their workers die of."""
        trials = self._pack.trials if self._pack else []
        return len(trials) > 1 and any(trial.deaths >= SPLIT_DEATHS for trial in trials)

    def _use_of(self, told: Sequence[tuple[DurableTrial, CameTo]]) -> Mapping[str, Any]:
        """Where evaluations were made that are new, and what they took; of none, nothing."""
        moved = (one for _, one in told if isinstance(one, Progress) and not one.resumed)
        if not any(one.evaluations for one in moved):
            return {}
        return {"host": platform.node(), "usage": self._usage.take()}

    def _report(self, trial: DurableTrial, came_to: CameTo, use: Mapping[str, Any]) -> Report:
        """What a trial came to, its evaluations with what they took."""
        one = self._carried[trial.key]
        if isinstance(came_to, Exception):
            return self._failed(one, Failure.of(came_to))
        one.came_to(came_to)
        report = {"key": trial.key, **asdict(came_to), "hardware": hardware(self._device)}
        for evaluation in report["evaluations"]:
            evaluation |= use
        return report

    def _failed(self, one: Carried, failure: Failure) -> Report:
        one.failed(failure)
        return {
            "key": one.trial.key,
            "failure": failure.reason,
            "out_of_memory": failure.is_out_of_memory,
            "done": True,
        }


def hardware(device: torch.device) -> str:
    """What trains, for a tag: the GPU's name, or the kind of CPU, the threads and the host."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, torch threads: {torch.get_num_threads()}, {platform.node()}"
