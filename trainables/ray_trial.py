"""The Ray adapter: one trial in one actor. No training logic here, no Ray in the training loop."""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from dataclasses import asdict
from typing import Any

import ray
import torch
from ray import tune

from trainables.config import TrialConfig
from trainables.corpus import Corpus
from trainables.durable import DurableTrial
from trainables.gpu_memory import is_out_of_memory
from trainables.storage import Storage, StorageError, TrialFiles
from trainables.training import Splits
from trainables.trial_log import Capture, TrialLog, forget_warnings, log_of
from trainables.usage import Usage

STEP_S = 2.0  # how long a call of `step` trains: a sweep that is to stop waits for it
LOOK_S = 1.0  # how often a worker asks whether its machine is about to leave

logger = logging.getLogger(__name__)


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """Carries a trial from one evaluation to the next, or for some seconds of training.

    Tune's own checkpoints are not used: the state of a trial lies under its key, so that it goes on
    whichever actor, or run of Tune, carries it.
    """

    def setup(
        self, config: dict[str, Any], corpus: Corpus, storage: Storage, threads: int, gpu: bool
    ) -> None:
        """Take what all trials of an actor share; ``corpus`` maps the node's one copy."""
        self.trial: DurableTrial | None = None
        self.files: TrialFiles | None = None  # with a log, from when a trial is taken up
        self.looked_s = time.monotonic()
        self.node = ray.get_runtime_context().get_node_id()
        storage.assert_seen()
        torch.set_num_threads(threads)
        self.corpus = corpus
        self.storage = storage
        self.device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self.splits: Splits | None = None
        self.capture = Capture()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to another trial: Tune reuses actors by this."""
        self.cleanup()
        self.carried = new_config["carried"]
        return True

    def step(self) -> dict[str, Any]:
        """Train for a while, and report.

        A trial that fails by itself reports its reason, so that it is not tried again as one whose
        worker died is; the traceback is in its log. Where the machine is about to leave the
        cluster, the trial is saved and this worker ends: Tune takes the trial elsewhere.
        """
        if self.must_leave():
            self.cleanup()
            ray.actor.exit_actor()
        key = self.carried["key"]
        try:
            if self.files is None:
                self.files = self.storage.take_up(key)
                self.log = TrialLog(log_of(self.files.folder))
            with self.capture.into(self.log):
                return {"key": key, **self._advanced(), "hardware": hardware(self.device)}
        except StorageError as error:
            self.trial = None
            if self.files:
                self.log.mark(f"stopped: {error}")
            return {"key": key, "storage": str(error), "done": True}
        except Exception as error:
            too_large = is_out_of_memory(error)
            reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        # Here the error is gone, and with it what its frames held: the next trial has the memory.
        if self.trial:
            self.trial.forget_starts()
        self._drop()
        self.log.mark(f"failed: {reason}\n{trace}")
        self._push_log()
        return {"key": key, "failure": reason, "out_of_memory": too_large, "done": True}

    def _advanced(self) -> dict[str, Any]:
        """What the trial came to, each new evaluation with where it was made and what that took."""
        if self.trial is None:
            assert self.files
            place = f"process {os.getpid()} on {platform.node()}"
            self.log.mark(f"taken up by {place}: {hardware(self.device)}")
            forget_warnings()
            self.usage = Usage(self.device)
            # Here, where it is the trial's failure that the GPU has no room even for these.
            self.splits = self.splits or Splits.of(self.corpus, self.device)
            config = TrialConfig.from_dict(self.carried["trial"])
            self.trial = DurableTrial(config, self.corpus, self.splits, self.files, self.device)
        with self.usage.counted():
            progress = self.trial.advance(STEP_S)
        self.log.tell(progress)
        if progress.done:
            self._drop()
            self._push_log()
        report = asdict(progress)
        if not progress.taken_up:
            for evaluation in report["evaluations"]:
                evaluation |= {"host": platform.node(), "usage": self.usage.take()}
        return report

    def must_leave(self) -> bool:
        """Whether Ray was told that this machine goes, such as a spot instance."""
        if time.monotonic() - self.looked_s < LOOK_S:
            return False
        self.looked_s = time.monotonic()
        return self.node in ray._private.state.state.get_draining_nodes()  # as Ray Train does

    def cleanup(self) -> None:
        """Save a trial that is left before its end; Tune calls this when it stops an actor."""
        if self.trial is not None:
            try:
                self.trial.leave()
                self.log.mark(f"left at step {self.trial.step}")
            except StorageError as error:
                self.log.mark(f"left, and not saved: {error}")
                logger.warning("%s", error)
            self._drop()
            self._push_log()
        if self.files is not None:
            self.log.close()
            self.files = None  # a private folder goes with it

    def _push_log(self) -> None:
        """Bring the end of the log to the storage; what counts is there already."""
        assert self.files
        try:
            self.files.push()
        except StorageError as error:
            logger.warning("%s", error)

    def _drop(self) -> None:
        """Give the memory of a trial back, to the next one and to others on the same GPU."""
        self.trial = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def hardware(device: torch.device) -> str:
    """What trains, for a tag: the GPU's name, or the kind of CPU, the threads and the host."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, torch threads: {torch.get_num_threads()}, {platform.node()}"
