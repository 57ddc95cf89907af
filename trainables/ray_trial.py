"""The Ray adapter: one trial in one actor. No training logic here, no Ray in the training loop."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainables.artifacts import write_artifacts
from trainables.checkpoint import load_checkpoint, save_checkpoint
from trainables.config import TrialConfig, trial_folder
from trainables.corpus import Corpus
from trainables.files import write_atomically
from trainables.training import Splits, initial_state, train


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """Moves a trial from one evaluation to the next, saving its state at each.

    Tune's own checkpoints are not used: the state of a trial lies under its key, so that it goes on
    whichever actor, or run of Tune, carries it.
    """

    def setup(
        self, config: dict[str, Any], corpus: Corpus, root: Path, threads: int, gpu: bool
    ) -> None:
        """Take what all trials of an actor share; ``corpus`` maps the node's one copy."""
        torch.set_num_threads(threads)
        self.corpus = corpus
        self.root = root
        self.device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self.splits = Splits.of(corpus, self.device)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to another trial: Tune reuses actors by this."""
        carried = new_config["carried"]
        self.folder = trial_folder(self.root, carried["key"])
        self.results = self._results(carried["trial"])
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next evaluation and report it.

        A trial that fails by itself reports its reason, so that it is not tried again as one whose
        worker died is; the traceback lies in its folder.
        """
        try:
            return next(self.results)
        except Exception as error:
            write_atomically(self.folder / "error.txt", traceback.format_exc().encode())
            return {"failure": f"{type(error).__name__}: {error}", "done": True}

    def _results(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        trial = TrialConfig.from_dict(data)
        state = initial_state(trial, self.corpus.vocab_size, self.device)
        checkpoint = self.folder / "checkpoint.safetensors"
        if checkpoint.exists():
            load_checkpoint(state, checkpoint, trial.key)
        for evaluation in train(state, self.splits, trial.training, trial.seed):
            save_checkpoint(state, checkpoint, trial.key)
            done = state.finished(trial.training)
            if done:
                folder = self.folder / "artifacts"
                write_artifacts(folder, trial, state.model, self.corpus.vocabulary)
            yield {
                "evaluation": asdict(evaluation),
                "hardware": hardware(self.device),
                "done": done,
            }


def hardware(device: torch.device) -> str:
    """What trains, for a tag: the GPU's name, or the kind of CPU, the threads and the host."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, torch threads: {torch.get_num_threads()}, {platform.node()}"
