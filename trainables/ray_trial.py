"""The Ray adapter: one trial in one actor. No training logic here, no Ray in the training loop."""

from __future__ import annotations

import logging
import os
import platform
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainables.config import TrialConfig, trial_folder
from trainables.corpus import Corpus
from trainables.durable import DurableTrial, StorageError
from trainables.training import Splits
from trainables.trial_log import Capture, TrialLog, forget_warnings, log_of
from trainables.usage import Usage

STEP_S = 2.0  # how long a call of `step` trains: a sweep that is to stop waits for it

logger = logging.getLogger(__name__)


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """Carries a trial from one evaluation to the next, or for some seconds of training.

    Tune's own checkpoints are not used: the state of a trial lies under its key, so that it goes on
    whichever actor, or run of Tune, carries it.
    """

    def setup(
        self, config: dict[str, Any], corpus: Corpus, root: Path, threads: int, gpu: bool
    ) -> None:
        """Take what all trials of an actor share; ``corpus`` maps the node's one copy."""
        self.trial: DurableTrial | None = None
        if not root.is_dir():  # else each trial would be kept where the driver cannot see it
            raise StorageError(f"{platform.node()} does not see {root}; share the state directory")
        torch.set_num_threads(threads)
        self.corpus = corpus
        self.root = root
        self.device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self.splits = Splits.of(corpus, self.device)
        self.capture = Capture()
        self._turn_to(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to another trial: Tune reuses actors by this."""
        self.cleanup()
        self._turn_to(new_config)
        return True

    def _turn_to(self, config: dict[str, Any]) -> None:
        self.carried = config["carried"]
        self.folder = trial_folder(self.root, self.carried["key"])
        self.log = TrialLog(log_of(self.folder))

    def step(self) -> dict[str, Any]:
        """Train for a while, and report.

        A trial that fails by itself reports its reason, so that it is not tried again as one whose
        worker died is; the traceback is in its log.
        """
        key = self.carried["key"]
        try:
            with self.capture.into(self.log):
                return {"key": key, **self._advanced(), "hardware": hardware(self.device)}
        except StorageError as error:
            self.trial = None
            self.log.mark(f"stopped: {error}")
            return {"key": key, "storage": str(error), "done": True}
        except Exception as error:
            reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        # Here the error is gone, and with it what its frames held: the next trial has the memory.
        if self.trial:
            self.trial.forget_starts()
            self.trial = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.log.mark(f"failed: {reason}\n{trace}")
        return {"key": key, "failure": reason, "done": True}

    def _advanced(self) -> dict[str, Any]:
        """What the trial came to, each new evaluation with where it was made and what that took."""
        if self.trial is None:
            place = f"process {os.getpid()} on {platform.node()}"
            self.log.mark(f"taken up by {place}: {hardware(self.device)}")
            forget_warnings()
            self.usage = Usage(self.device)
            config = TrialConfig.from_dict(self.carried["trial"])
            self.trial = DurableTrial(config, self.corpus, self.splits, self.folder, self.device)
        with self.usage.counted():
            progress = self.trial.advance(STEP_S)
        self.log.tell(progress)
        if progress.done:
            self.trial = None
        report = asdict(progress)
        if not progress.taken_up:
            for evaluation in report["evaluations"]:
                evaluation |= {"host": platform.node(), "usage": self.usage.take()}
        return report

    def cleanup(self) -> None:
        """Save a trial that is left before its end; Tune calls this when it stops an actor."""
        if self.trial is not None:
            try:
                self.trial.leave()
                self.log.mark(f"left at step {self.trial.step}")
            except StorageError as error:
                self.log.mark(f"left, and not saved: {error}")
                logger.warning("%s", error)
            self.trial = None
        self.log.close()


def hardware(device: torch.device) -> str:
    """What trains, for a tag: the GPU's name, or the kind of CPU, the threads and the host."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, torch threads: {torch.get_num_threads()}, {platform.node()}"
