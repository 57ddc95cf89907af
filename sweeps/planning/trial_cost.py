"""The cost of trials, and what their evaluations read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from trainables.config import EvaluatingTrain, TrainingConfig
from trainables.training.loop import Splits

WEIGHTS_ON_DISK = 8  # two checkpoints with both moments, the artifact and MLflow's copy of it
TRIAL_DISK_BYTES = 64 << 10  # text, configuration, and rows in both databases


@dataclass(frozen=True)
class TrialCost:
    """Cost of one trial."""

    seconds: float  # on one slot; of a trial in a pack its part of the pack's time
    memory_bytes: int  # beyond the worker itself
    disk_bytes: int
    members: int = 1  # trials of its pack


@dataclass(frozen=True)
class Costs:
    """Costs of known trials, and how reliable they are."""

    by_key: Mapping[str, TrialCost]
    uncertain: float  # relative error of the seconds
    busy: float  # median time of a step just now, relative to the shortest
    basis: str  # the sources, in words


def bytes_on_disk(weights_bytes: float) -> int:
    """Return the bytes of a trial on disk."""
    return TRIAL_DISK_BYTES + int(WEIGHTS_ON_DISK * weights_bytes)


def evaluated_parts(training: TrainingConfig, takes_steps: bool) -> Counter[EvaluatingTrain]:
    """Return how often a trial evaluates each part of the training split."""
    if not takes_steps:
        return Counter[EvaluatingTrain](["exact"])
    before_last = math.ceil(training.max_steps / training.eval_every) - 1
    before_last += training.evaluation == "published"  # evaluates before the first step
    return Counter({training.train_part: before_last}) + Counter[EvaluatingTrain](["exact"])


def evaluated_tokens(
    training: TrainingConfig, splits: Splits, part: EvaluatingTrain = "exact"
) -> int:
    """Return the number of tokens that an evaluation reads, with a part of the training split."""
    if training.evaluation == "exact":
        train_N = splits.train_part(part)
        return len(splits.validation) + (0 if train_N is None else len(train_N))
    return 2 * training.eval_batches * training.batch_size * training.block_size
