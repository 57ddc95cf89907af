"""Costs of a trial that are known before it is trained: a search can minimise them too."""

from __future__ import annotations

import math

from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.own_modules import silenced


def count_parameters(trial: TrialConfig, vocab_size: int) -> float:
    """Return how many numbers the model of a trial learns, or NaN if it cannot be built."""
    block_size = trial.training.block_size
    try:
        with silenced():
            model = trial.model.build(vocab_size, block_size, initial_stream(trial.seed))
    except (Exception, SystemExit):  # of a user's own model
        return math.nan
    return sum(parameter.numel() for parameter in model.parameters())


def training_tokens(trial: TrialConfig) -> int:
    """Return how many tokens a trial trains on."""
    training = trial.training
    return training.last_step * training.batch_size * training.block_size
