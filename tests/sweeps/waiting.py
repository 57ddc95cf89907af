"""A sweep whose training waits at each step for as long as a test likes.

Waiting takes no processor time. So a test has time for what it does to a sweep, however fast or
busy the machine is, and the sweep ends soon after `WaitingFolder.go_on`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bigram_models import LanguageModel
from tests.sweeps.running import SweepFolder

PAUSE_S = 0.02  # at each step
FILE = "TEST_WAITS_WHILE"  # names a file by which the training waits
ROOT = Path(__file__).parents[2]
SWEEP = """
name: long
corpus: file:play.txt
training: {max_steps: 1500, eval_every: 150}
replicates: [1, 2]
arms: [{model: {variant: "tests.sweeps.waiting:Waiting"}}]
"""


class Waiting(LanguageModel):
    """A bigram table that trains slowly while a file exists: time for a test to disturb it."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """It has no settings."""

    def __init__(
        self, config: Config, vocab_size: int, block_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(vocab_size, context_size=block_size)
        self.logits_VV = torch.nn.Parameter(
            torch.randn(vocab_size, vocab_size, generator=generator)
        )

    def forward(self, ids_BT: Tensor) -> Tensor:
        if torch.is_grad_enabled() and os.path.exists(os.environ.get(FILE, "")):
            time.sleep(PAUSE_S)
        return self.logits_VV[ids_BT]


@dataclass
class WaitingFolder(SweepFolder):
    """A folder with a sweep of two trials, each of which waits for 30 s in all."""

    sweep: str = SWEEP

    def __post_init__(self) -> None:
        super().__post_init__()
        self.environment |= waiting_environment(self._file)
        self._file.touch()

    @property
    def _file(self) -> Path:
        return self.path / "waits"

    def go_on(self) -> None:
        """Let the training wait no longer."""
        self._file.unlink()


def waiting_environment(file: Path) -> dict[str, str]:
    """What a process needs to train the model, which waits while a file exists."""
    return {FILE: str(file), "PYTHONPATH": str(ROOT)}
