"""Train trials in a pack and alone, and compare the results.

Imports no Ray.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sweeps.planning.plan import Plan
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from sweeps.spec.search_spec import Scalar
from sweeps.spec.sweep_file import AUTO, OFF
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.loop import (
    Splits,
    TrainingDivergedError,
    TrainingState,
    initial_state,
    train,
)
from trainables.training.stack import Member, NotStackableError, Stack

STEPS = 10  # after which parameters are compared: later rounding grows
PARAMETERS = 1e-5  # the largest relative difference of a tensor then
LOSS = 0.003  # nats: the largest difference of a final validation loss
BIAS = 0.0005  # nats: the largest mean of the signed differences, over all trials
SIZE = 8  # of a pack, if the sweep has no size
QUICK_EVALUATION: Mapping[str, Scalar] = {"evaluation": "sampled", "eval_batches": 1}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackComparison:
    """Differences between the trials of a pack and the same trials alone."""

    trials: Sequence[TrialConfig]
    parameters: float = math.nan  # the largest relative difference after the first steps, by tensor
    losses: Sequence[float] = ()  # nats, pack less alone, of each trial
    problem: str = ""  # why the trials cannot train in a pack

    @property
    def largest(self) -> float:
        """The largest absolute difference of losses, in nats."""
        return max((abs(loss) for loss in self.losses), default=math.nan)

    @property
    def is_honest(self) -> bool:
        """True if the differences are within the limits, or the trials have to train alone."""
        is_same = self.parameters <= PARAMETERS and self.largest <= LOSS
        return bool(self.problem) or is_same


def packs_of(plan: Plan, size: int | None) -> list[list[TrialConfig]]:
    """Return the packs of a sweep; a pack of one trial gets a second seed.

    Args:
        plan: its trials, and examples of what it searches.
        size: the most trials of a pack; None takes the size of the sweep.
    """
    resources = plan.sweep.resources
    if size is None:
        size = SIZE if resources.pack in (AUTO, OFF) else int(resources.pack)
    packs = Packs(resources.model_copy(update={"pack": max(2, size)}))
    queue = Queue()
    queue.put((*plan.trials, *plan.examples))
    found = []
    while trials := queue.next(packs):
        if packs.size(trials[0]) == 1:  # the model is fitted
            continue
        if len(trials) == 1:
            trials.append(replace(trials[0], seed=trials[0].seed + 1))
        found.append(trials)
    return found


def compare_packs(
    corpus: Corpus, packs: Sequence[Sequence[TrialConfig]]
) -> Iterator[PackComparison]:
    """Train each pack, and its trials alone, on a GPU if there is one.

    Args:
        corpus: that they train on.
        packs: from `packs_of`.

    Yields:
        A comparison for each pack.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = Splits.of(corpus, device)
    for trials in packs:
        try:
            brief = [_changed(trial, eval_every=STEPS, **QUICK_EVALUATION) for trial in trials]
            pairs = _first_steps(brief, corpus.vocab_size, splits)
            parameters = max(_parameter_difference(*pair) for pair in pairs)
            whole = [_evaluated_at_the_end(trial) for trial in trials]
            pairs = _both(whole, corpus.vocab_size, splits)
            losses = [
                _loss_difference(trial, packed, alone)
                for trial, (packed, alone) in zip(whole, pairs, strict=True)
            ]
            yield PackComparison(trials, parameters, losses)
        except NotStackableError as error:
            yield PackComparison(trials, problem=str(error))


def verdict(compared: Sequence[PackComparison]) -> tuple[bool, str]:
    """Return whether all packs agree with their trials alone, and a summary in words."""
    losses = [loss for pack in compared for loss in pack.losses]
    bias = statistics.fmean(losses) if losses else 0.0
    is_honest = all(pack.is_honest for pack in compared) and abs(bias) <= BIAS
    largest = max((pack.largest for pack in compared if pack.losses), default=0.0)
    packs = sum(not pack.problem for pack in compared)
    return is_honest, (
        f"{len(losses)} trials in {packs} packs: losses within {largest:.5f} nats,"
        f" {bias:+.5f} on average"
    )


def _first_steps(
    trials: Sequence[TrialConfig], vocab_size: int, splits: Splits
) -> list[tuple[TrainingState, TrainingState]]:
    """Return the states after the first steps, like `_both`, in float64 if the model allows it.

    AdamW divides a gradient by its own size: where that is near zero, rounding moves a parameter
    by up to a learning rate, so in float32 not even two orders of one sum agree to 1e-5.
    """
    torch.set_default_dtype(torch.float64)  # also of tensors that a forward pass makes
    try:
        return _both(trials, vocab_size, splits, is_brief=True, is_double=True)
    except RuntimeError as error:
        logger.info("compared in float32, as the model fails in float64: %s", error)
    finally:
        torch.set_default_dtype(torch.float32)
    return _both(trials, vocab_size, splits, is_brief=True)


def _both(
    trials: Sequence[TrialConfig],
    vocab_size: int,
    splits: Splits,
    is_brief: bool = False,
    is_double: bool = False,
) -> list[tuple[TrainingState, TrainingState]]:
    """Return pairs of states: of each trial trained in the pack, and alone.

    Args:
        trials: of the pack.
        vocab_size: of the corpus.
        splits: the corpus.
        is_brief: whether to stop at the first evaluation.
        is_double: whether to train in float64.
    """
    device = splits.train.device
    packed, alone = (
        [initial_state(trial, vocab_size, device) for trial in trials] for _ in range(2)
    )
    if is_double:
        for state in (*packed, *alone):
            state.model.double()
    stack = Stack([Member(*pair) for pair in zip(trials, packed, strict=True)], splits)
    while stack.members:
        stack.advance()
        if is_brief:
            break
    for trial, state in zip(trials, alone, strict=True):
        with contextlib.suppress(TrainingDivergedError):
            for _ in train(state, splits, trial.training, trial.seed):
                if is_brief:
                    break
    return list(zip(packed, alone, strict=True))


def _changed(trial: TrialConfig, **settings: Scalar) -> TrialConfig:
    """Return the trial with other settings of its training."""
    return replace(trial, training=trial.training.model_copy(update=settings))


def _evaluated_at_the_end(trial: TrialConfig) -> TrialConfig:
    """Return the trial without earlier evaluations, unless they draw from the steps' generator."""
    if trial.training.evaluation == "published":
        return trial
    return _changed(trial, eval_every=trial.training.max_steps)


@torch.no_grad()
def _parameter_difference(packed: TrainingState, alone: TrainingState) -> float:
    """Return the largest relative difference of two models' parameters, by tensor."""
    pairs = zip(packed.model.parameters(), alone.model.parameters(), strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _loss_difference(trial: TrialConfig, packed: TrainingState, alone: TrainingState) -> float:
    """Return the difference of the final losses, in nats; 0 if the trial diverges both ways."""
    finished = [state.finished(trial.training) for state in (packed, alone)]
    if not any(finished):
        return 0.0
    if not all(finished):
        return math.inf
    assert packed.last
    assert alone.last
    return packed.last.val_loss - alone.last.val_loss
