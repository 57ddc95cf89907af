"""The training loop: a generator that knows neither Ray nor MLflow.

A trial is a `TrainingState` that `train` moves forward. Whoever iterates decides when to save,
report or stop; between two evaluations nothing waits for the device.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigram_models import FittedModel, LanguageModel
from trainables.batches import WindowSampler, initial_stream, stream
from trainables.config import TrainingConfig, TrialConfig
from trainables.corpus import Corpus
from trainables.evaluation import exact_loss, next_token_loss, sampled_loss


class TrainingDivergedError(ArithmeticError):
    """The loss is not finite any more; the message names the step."""


@dataclass(frozen=True)
class Splits:
    """The token ids of both splits, (N,) int32, on the device that trains."""

    train: Tensor
    validation: Tensor

    @staticmethod
    def of(corpus: Corpus, device: torch.device) -> Splits:
        """Wrap the arrays of the corpus; on a CPU nothing is copied."""
        return Splits(*(_shared(split).to(device) for split in (corpus.train, corpus.validation)))


@dataclass(frozen=True)
class Evaluation:
    """Losses after a step, in nats per character."""

    step: int
    train_nats: float
    val_nats: float
    best_val_nats: float
    training_s: float
    tokens_per_s: float


@dataclass
class TrainingState:
    """All that a trial needs to go on exactly where it stands."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer | None  # None for a model that is fitted, not trained
    batches: torch.Generator
    step: int = 0  # optimizer updates so far
    training_s: float = 0.0  # spent in steps, without evaluation
    last: Evaluation | None = None  # the newest evaluation, which has the best so far

    @property
    def best_val_nats(self) -> float:
        return math.inf if self.last is None else self.last.best_val_nats

    def finished(self, training: TrainingConfig) -> bool:
        """Whether nothing is left to do."""
        done = self.optimizer is None or self.step == training.last_step
        return self.last is not None and done


def initial_state(
    trial: TrialConfig, vocab_size: int, device: torch.device | str = "cpu"
) -> TrainingState:
    """The state of a trial before its first step.

    The initial values are drawn on the CPU, so they do not depend on the device.
    """
    training = trial.training
    chance = initial_stream(trial.seed)
    model = trial.model.build(vocab_size, training.block_size, chance)
    model.to(device)
    optimizer = None
    if not isinstance(model, FittedModel):
        optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, fused=True)
    if training.evaluation != "published":
        chance = stream(trial.seed, "batches", device)
    return TrainingState(model, optimizer, chance)


def train(
    state: TrainingState, splits: Splits, training: TrainingConfig, seed: int
) -> Iterator[Evaluation]:
    """Move the state to the end of its training, pausing at each evaluation.

    Args:
        state: changed in place; a state that was saved at an evaluation goes on bit for bit.
        splits: the text, on the device of the state.
        training: batch, steps, learning rate and evaluation.
        seed: the seed of the trial, for sampled evaluation.

    Yields:
        The losses every ``eval_every`` steps and after the last one (`Evaluating` says where the
        study looked); once for a fitted model; a finished state yields its last ones again.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    if state.last is not None and state.finished(training):
        yield state.last
    elif isinstance(state.model, FittedModel):
        started = time.perf_counter()
        state.model.fit(splits.train)
        state.training_s = time.perf_counter() - started
        yield _evaluate(state, splits, training, seed, tokens=len(splits.train))
    sampler = WindowSampler(splits.train, training.batch_size, training.block_size)
    while not state.finished(training):
        take_steps(state, sampler, _steps_to_evaluation(state, training))
        tokens = state.step * training.batch_size * training.block_size
        yield _evaluate(state, splits, training, seed, tokens)


def _steps_to_evaluation(state: TrainingState, training: TrainingConfig) -> int:
    if training.evaluation == "published" and state.last is None:
        return 0  # the study looked before its first step
    next_evaluation = (state.step // training.eval_every + 1) * training.eval_every
    return min(next_evaluation, training.last_step) - state.step


def take_steps(state: TrainingState, sampler: WindowSampler, steps: int) -> None:
    """Take optimizer steps, then look once whether every loss was finite.

    Raises:
        TrainingDivergedError: naming the first step whose loss is not.
    """
    if steps == 0:
        return
    assert state.optimizer is not None
    started = time.perf_counter()
    losses = []
    for _ in range(steps):
        inputs_BT, targets_BT = sampler.draw(state.batches)
        loss = next_token_loss(state.model(inputs_BT), targets_BT)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        losses.append(loss.detach())
    finite = torch.stack(losses).isfinite().tolist()  # the only wait for the device
    state.training_s += time.perf_counter() - started
    if not all(finite):
        first = finite.index(False)
        raise TrainingDivergedError(
            f"the loss is {float(losses[first])} at step {state.step + first + 1}"
        )
    state.step += steps


def _evaluate(
    state: TrainingState, splits: Splits, training: TrainingConfig, seed: int, tokens: int
) -> Evaluation:
    """Measure both splits; ``tokens`` is how many were trained on so far."""
    state.model.eval()
    if training.evaluation == "exact":
        train_nats, val_nats = (
            exact_loss(state.model, split, training.block_size)
            for split in (splits.train, splits.validation)
        )
    else:
        chance = (
            state.batches
            if training.evaluation == "published"
            else stream(seed, f"evaluation/{state.step}", splits.train.device)
        )
        train_nats, val_nats = (
            sampled_loss(
                state.model,
                WindowSampler(split, training.batch_size, training.block_size),
                training.eval_batches,
                chance,
            )
            for split in (splits.train, splits.validation)
        )
    state.model.train()
    for split_name, nats in (("training", train_nats), ("validation", val_nats)):
        if not math.isfinite(nats):
            raise TrainingDivergedError(f"the {split_name} loss is {nats} at step {state.step}")
    state.last = Evaluation(
        step=state.step,
        train_nats=train_nats,
        val_nats=val_nats,
        best_val_nats=min(state.best_val_nats, val_nats),
        training_s=state.training_s,
        tokens_per_s=tokens / state.training_s if state.training_s else 0.0,
    )
    return state.last


def _shared(tokens: npt.NDArray[np.int32]) -> Tensor:
    """A tensor over the memory of an array, which may be read-only: nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(tokens)
