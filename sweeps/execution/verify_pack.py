"""Whether trials are in a pack what they are alone: both are trained and compared.

Knows no Ray.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sweeps.planning.plan import Plan
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
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
SIZE = 8  # of a pack, where the sweep does not say
GLANCE = {"evaluation": "sampled", "eval_batches": 1}  # after the first steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """A pack against its trials alone."""

    trials: Sequence[TrialConfig]
    parameters: float = math.nan  # the largest relative difference after the first steps, by tensor
    losses: Sequence[float] = ()  # nats, pack less alone, of each trial
    problem: str = ""  # why they cannot be a pack

    @property
    def largest(self) -> float:
        """Of the differences of losses."""
        return max((abs(loss) for loss in self.losses), default=math.nan)

    @property
    def is_honest(self) -> bool:
        """Trials that cannot be a pack train alone, which is honest too."""
        is_same = self.parameters <= PARAMETERS and self.largest <= LOSS
        return bool(self.problem) or is_same


def packs_of(plan: Plan, size: int | None) -> list[list[TrialConfig]]:
    """The packs of a sweep, those of one trial with a second seed.

    Args:
        plan: its trials, and examples of what it searches.
        size: trials of a pack at most; None takes what the sweep says.
    """
    resources = plan.sweep.resources
    if size is None:
        size = SIZE if resources.pack in (AUTO, OFF) else int(resources.pack)
    packs = Packs(resources.model_copy(update={"pack": max(2, size)}))
    queue = Queue()
    queue.put((*plan.trials, *plan.examples))
    found = []
    while trials := queue.next(packs):
        if packs.size(trials[0]) == 1:  # a model that is fitted
            continue
        if len(trials) == 1:
            trials.append(replace(trials[0], seed=trials[0].seed + 1))
        found.append(trials)
    return found


def compare(corpus: Corpus, packs: Sequence[Sequence[TrialConfig]]) -> Iterator[Compared]:
    """Train each pack as one and its trials alone, on a GPU if there is one.

    Args:
        corpus: what they train on.
        packs: from `packs_of`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = Splits.of(corpus, device)

    for trials in packs:
        try:
            brief = [_changed(trial, eval_every=STEPS, **GLANCE) for trial in trials]
            pairs = _first_steps(brief, corpus.vocab_size, splits)
            parameters = max(_apart(*pair) for pair in pairs)
            whole = [_evaluated_at_the_end(trial) for trial in trials]
            pairs = _both(whole, corpus.vocab_size, splits)
            losses = [
                _difference(*pair) for pair in zip(whole, *zip(*pairs, strict=True), strict=True)
            ]
            yield Compared(trials, parameters, losses)
        except NotStackableError as error:
            yield Compared(trials, problem=str(error))


def verdict(compared: Sequence[Compared]) -> tuple[bool, str]:
    """Whether all packs are what their trials are alone, and all of it in words."""
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
    """As `_both`, in float64 where the model can.

    AdamW divides a gradient by its own size: where that is near zero its rounding moves a parameter
    by up to a learning rate, so in float32 not even two orders of one sum agree to 1e-5.
    """
    torch.set_default_dtype(torch.float64)  # also of tensors that a forward pass makes
    try:
        return _both(trials, vocab_size, splits, is_brief=True, is_double=True)
    except RuntimeError as error:
        logger.info("compared in float32, on which the model insists: %s", error)
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
    """The states of trials that trained in a pack, and alone; to their first evaluation or end."""
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


def _changed(trial: TrialConfig, **settings: Any) -> TrialConfig:
    return replace(trial, training=trial.training.model_copy(update=settings))


def _evaluated_at_the_end(trial: TrialConfig) -> TrialConfig:
    """The same losses in less time, where evaluations draw nothing that the steps draw."""
    if trial.training.evaluation == "published":
        return trial
    return _changed(trial, eval_every=trial.training.max_steps)


@torch.no_grad()
def _apart(one: TrainingState, other: TrainingState) -> float:
    """The largest relative difference of two models' parameters, by tensor."""
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _difference(trial: TrialConfig, packed: TrainingState, alone: TrainingState) -> float:
    """Of the final validation losses in nats; none of a trial that diverges both ways."""
    finished = [state.finished(trial.training) for state in (packed, alone)]
    if not any(finished):
        return 0.0
    if not all(finished):
        return math.inf
    assert packed.last
    assert alone.last
    return packed.last.val_loss - alone.last.val_loss
