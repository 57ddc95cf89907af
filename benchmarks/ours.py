"""Our trials of the published shapes, trained as a worker trains them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.operations import attention_operations, executed_operations
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits, advance, initial_state
from trainables.training.stack import Member, Stack

BATCH_SIZE = 64
POSITIONS = ("randn", "sinpe", "rope")
MIXED = "mixed"  # trials take the positional encodings in turn


class Shape(NamedTuple):
    """The shape of an attention model of the published study."""

    n_embd: int
    block_size: int
    pe_type: str  # or `MIXED`


def trials_of(
    shape: Shape, corpus: Corpus, steps: int, evaluations: int, count: int = 1
) -> list[TrialConfig]:
    """Return trials that differ in their seed, each evaluated every ``steps`` steps."""
    positions = POSITIONS if shape.pe_type == MIXED else (shape.pe_type,)
    training = {
        "block_size": shape.block_size,
        "batch_size": BATCH_SIZE,
        "max_steps": steps * evaluations,
        "eval_every": steps,
    }
    return [
        TrialConfig.from_dict(
            {
                "model": {
                    "variant": "attention",
                    "pe_type": positions[number % len(positions)],
                    "n_embd": shape.n_embd,
                },
                "training": training,
                "seed": 1337 + number,
                "corpus": corpus.name,
                "corpus_digest": corpus.digest,
            }
        )
        for number in range(count)
    ]


class StepTimes(NamedTuple):
    """The steps that trials took in one call, and their seconds."""

    steps: int  # of each trial
    steps_s: float  # of all of them
    evaluation_s: float


class OurTrials:
    """Trials that train as one stack; a single trial on a CPU trains without a stack."""

    def __init__(self, trials: Sequence[TrialConfig], corpus: Corpus, splits: Splits) -> None:
        device = splits.train.device
        states = [initial_state(trial, corpus.vocab_size, device) for trial in trials]
        self._first = states[0]
        self._size = len(trials)
        self._advance: Callable[[float], object]
        if len(trials) == 1 and device.type == "cpu":
            (trial,), (state,) = trials, states
            self._advance = partial(advance, state, splits, trial.training, trial.seed)
        else:
            members = [Member(*pair) for pair in zip(trials, states, strict=True)]
            self._advance = Stack(members, splits).advance

    def advance(self, within_s: float = math.inf) -> StepTimes:
        """Train to the next evaluation, or for within_s seconds."""
        step, training_s = self._first.step, self._first.training_s
        started = time.perf_counter()
        self._advance(within_s)
        wall_s = time.perf_counter() - started
        steps_s = (self._first.training_s - training_s) * self._size  # a member counts its share
        return StepTimes(self._first.step - step, steps_s, wall_s - steps_s)


def operations_of(shape: Shape, corpus: Corpus) -> tuple[int, int]:
    """Return the operations of a step by the definition, and those that our code executes."""
    splits = Splits.of(corpus, torch.device("cpu"))
    ours = OurTrials(trials_of(shape, corpus, steps=2, evaluations=1), corpus, splits)
    executed = executed_operations(lambda: ours.advance(within_s=0))  # one step
    B, T, D, V = BATCH_SIZE, shape.block_size, shape.n_embd, corpus.vocab_size
    return attention_operations(B, T, D, V), executed
