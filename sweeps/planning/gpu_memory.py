"""GPU memory of packs, from the shapes of their tensors: nothing is measured on a GPU.

Shapes: B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bigram_models import AttentionBigram, FittedModel, LanguageModel
from sweeps.planning.sizes import saved_bytes
from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.data.corpus import Corpus
from trainables.errors import UserError, type_and_message
from trainables.own_modules import silenced
from trainables.training.evaluation import (
    EVALUATION_TOKENS_GPU,
    are_tables,
    batch_loss,
    next_token_loss,
)
from trainables.training.step_table import CELLS, STEPS

logger = logging.getLogger(__name__)

# An assumption: CUDA's context and libraries, the tables of steps to come, and fragmentation.
# The GPU benchmark prints what a process takes.
PROCESS_BYTES = 3 << 29
MOST_MEMBERS = 512  # of a pack: what further ones would save is little, and a failure hits all
UNKNOWN_PACK = 4  # trials of a pack of models whose memory is unknown
COPIES = 6  # of the parameters: values, gradients, two moments, and two tensors of an update
BACKWARD = 2.0  # tensors of a step at its peak, relative to those saved for its backward pass
FLOAT, INTEGER = 4, 8  # bytes
FORWARD_TOKENS = 4_096  # of the pass in which saved tensors are counted; larger batches are scaled


@dataclass(frozen=True)
class MemberMemory:
    """Bytes that each member of a pack adds."""

    parameters: int  # numbers that are trained
    state_bytes: int  # parameters, gradients, moments, starts of windows: there all the time
    step_bytes: int  # the other tensors of a step at its peak
    token_bytes: int  # of an evaluation, for each token of a forward pass
    block_size: int  # tokens: a forward pass has as many for each member at least

    def evaluation_bytes(self, members: int) -> int:
        """Return the bytes of an evaluation, whose tokens are shared among the members."""
        tokens = max(members * self.block_size, EVALUATION_TOKENS_GPU)
        return tokens * self.token_bytes

    def live_bytes(self, members: int) -> int:
        """Return the bytes of all tensors that exist at the same time, at most."""
        step_bytes = members * self.step_bytes
        return members * self.state_bytes + max(step_bytes, self.evaluation_bytes(members))

    def reserved_bytes(self, members: int) -> int:
        """Return the bytes that torch's allocator holds on a GPU, at most.

        It keeps apart what the steps before a recording, the recorded steps and evaluations take.
        """
        steps_bytes = 2 * members * self.step_bytes
        return members * self.state_bytes + steps_bytes + self.evaluation_bytes(members)

    def most(self, room_bytes: float, limit: int) -> int:
        """Return the members of the largest pack that fits, from 0 to `limit`."""
        return bisect_right(range(1, limit + 1), room_bytes, key=self.reserved_bytes)


def memory_key(trial: TrialConfig) -> str:
    """Return a key that is equal for trials that take equal memory."""
    training = trial.training
    return repr((trial.model, training.block_size, training.batch_size, training.evaluation))


class GpuMemory:
    """GPU memory of the trials on a corpus, computed once for each shape."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._members: dict[str, MemberMemory | None] = {}  # by memory_key

    @property
    def process_bytes(self) -> int:
        """Bytes of a process that trains on a GPU, without its trials."""
        corpus = self._corpus
        tokens = len(corpus.train) + len(corpus.validation) + len(corpus.test)
        return PROCESS_BYTES + FLOAT * tokens

    def member(self, trial: TrialConfig) -> MemberMemory | None:
        """Return what a trial adds to a pack, or None if that is unknown."""
        key = memory_key(trial)
        if key not in self._members:
            self._members[key] = member_memory(trial, self._corpus)
        return self._members[key]

    def alone_bytes(self, trials: Iterable[TrialConfig]) -> int:
        """Return the bytes of a process that trains the largest of some trials, if it is known."""
        known = (self.member(trial) for trial in trials)
        largest = max((memory.reserved_bytes(1) for memory in known if memory), default=0)
        return self.process_bytes + largest


def member_memory(trial: TrialConfig, corpus: Corpus) -> MemberMemory | None:
    """Return what a trial adds to a pack, or None for a user's model that cannot be computed here.

    It is never too small for the variants of `bigram_models`, and up to twice as large.
    """
    try:
        with silenced():
            return _member_memory(trial, corpus)
    except (Exception, SystemExit) as error:  # the trial itself will fail, with its reason
        reason = error if isinstance(error, UserError) else type_and_message(error)
        logger.info("the memory of %s is unknown: %s", trial.model.variant, reason)
        return None


def _member_memory(trial: TrialConfig, corpus: Corpus) -> MemberMemory:
    training, V = trial.training, corpus.vocab_size
    B, T = training.batch_size, training.block_size
    model = trial.model.build(V, T, initial_stream(trial.seed))
    if isinstance(model, FittedModel):  # counts codes of the whole text
        return MemberMemory(0, 0, 4 * INTEGER * len(corpus.train), 6 * FLOAT * V, T)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    step_bytes, token_bytes = _activations(model, B, T)
    windows_bytes = 4 * INTEGER * B * (T + 1)
    return MemberMemory(
        parameters=parameters,
        state_bytes=FLOAT * COPIES * parameters + INTEGER * min(STEPS * B, CELLS),
        step_bytes=int(step_bytes) + windows_bytes,
        token_bytes=int(token_bytes),
        block_size=T,
    )


def _activations(model: LanguageModel, B: int, T: int) -> tuple[float, float]:
    """Return the peak bytes of a training step, and those of an evaluation for each token."""
    if type(model) is AttentionBigram and model.embed_VD.shape[1] % 2 == 0:  # else by autograd
        V, D = model.embed_VD.shape
        # x, scores and logits, each with its gradient and what it is computed from.
        token_bytes = FLOAT * (3 * D + 4 * T + 4 * V)
        return B * T * token_bytes, token_bytes
    some = min(B, max(1, FORWARD_TOKENS // T))
    ids_BT = torch.zeros((some, T), dtype=torch.int64)
    step_bytes = saved_bytes(lambda: batch_loss(model, ids_BT, ids_BT)) * B / some
    if are_tables([model] * MOST_MEMBERS):  # evaluated by counts of pairs, in float64
        return max(BACKWARD * step_bytes, FLOAT * 12 * model.vocab_size**2), 0
    forward_bytes = saved_bytes(lambda: next_token_loss(model(ids_BT), ids_BT))
    return BACKWARD * step_bytes, BACKWARD * forward_bytes / ids_BT.numel()
