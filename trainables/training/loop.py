"""The training loop, which knows neither Ray nor MLflow.

A trial is a `TrainingState` that `advance` moves forward, to its next evaluation or for so long;
`train` goes through to the end. Whoever calls decides when to save, report or stop; in between
nothing waits for the device.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigram_models import FittedModel, LanguageModel
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.batches import WindowSampler, initial_stream, stream
from trainables.data.corpus import Corpus
from trainables.precision import computed_in
from trainables.training.evaluation import exact_loss, next_token_loss, sampled_loss


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
    train_loss: float
    val_loss: float
    best_val_loss: float
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
    history: list[Evaluation] = field(default_factory=list)  # of this trial, from its start

    @property
    def last(self) -> Evaluation | None:
        """The newest evaluation, which has the best so far."""
        return self.history[-1] if self.history else None

    @property
    def best_val_loss(self) -> float:
        return math.inf if self.last is None else self.last.best_val_loss

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

    The arguments and errors are those of `advance`.

    Yields:
        The losses every ``eval_every`` steps and after the last one (`Evaluating` says where the
        study looked); once for a fitted model; nothing for a finished state.
    """
    while not state.finished(training):
        evaluation = advance(state, splits, training, seed)
        assert evaluation is not None
        yield evaluation


def advance(
    state: TrainingState,
    splits: Splits,
    training: TrainingConfig,
    seed: int,
    within_s: float = math.inf,
) -> Evaluation | None:
    """Move the state to its next evaluation, or by as many steps as fit into a time.

    Where a state stops, is saved and goes on changes no bit of what comes after.

    Args:
        state: not finished; changed in place.
        splits: the text, on the device of the state.
        training: batch, steps, learning rate and evaluation.
        seed: the seed of the trial, for sampled evaluation.
        within_s: seconds of steps; at least one is taken, and an evaluation is never cut short.

    Returns:
        The losses; None where the time was up before.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    if isinstance(state.model, FittedModel):
        started = time.perf_counter()
        state.model.fit(splits.train)
        state.training_s = time.perf_counter() - started
        return evaluate(state, splits, training, seed, tokens=len(splits.train))
    target = next_evaluation(state, training)
    sampler = WindowSampler(splits.train, training.batch_size, training.block_size)
    with computed_in(training.precision, splits.train.device):
        take_steps(state, sampler, target - state.step, within_s, training.learning_rate_at)
    if state.step < target:
        return None
    tokens = state.step * training.batch_size * training.block_size
    return evaluate(state, splits, training, seed, tokens)


def next_evaluation(state: TrainingState, training: TrainingConfig) -> int:
    """The step of the evaluation that comes next."""
    if state.last is None and training.evaluation == "published":
        return 0  # the study looked before its first step
    looked_at = state.last.step if state.last else 0
    return min((looked_at // training.eval_every + 1) * training.eval_every, training.last_step)


def take_steps(
    state: TrainingState,
    sampler: WindowSampler,
    steps: int,
    within_s: float = math.inf,
    rate_at: Callable[[int], float] | None = None,
) -> None:
    """Take optimizer steps, then look once whether every loss was finite.

    Args:
        state: changed in place.
        sampler: of the training split.
        steps: how many.
        within_s: the first step that ends after these seconds is the last one.
        rate_at: the learning rate by the number of updates before; None leaves it as it is.

    Raises:
        TrainingDivergedError: naming the first step whose loss is not.
    """
    if steps == 0:
        return
    assert state.optimizer is not None
    started = time.perf_counter()
    # One tensor: small ones that stay would keep the heap from giving back the large ones between.
    losses = torch.zeros(steps, device=sampler.windows_NT1.device)
    taken = 0
    for step in range(state.step, state.step + steps):
        if rate_at:
            for group in state.optimizer.param_groups:
                group["lr"] = rate_at(step)
        inputs_BT, targets_BT = sampler.draw(state.batches)
        loss = next_token_loss(state.model(inputs_BT), targets_BT)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        losses[taken] = loss.detach()
        taken += 1
        if time.perf_counter() - started > within_s:
            break
    finite = losses.isfinite().tolist()  # the only wait for the device
    state.training_s += time.perf_counter() - started
    if not all(finite):
        first = finite.index(False)
        raise TrainingDivergedError(
            f"the loss is {float(losses[first])} at step {state.step + first + 1}"
        )
    state.step += taken


def evaluate(
    state: TrainingState, splits: Splits, training: TrainingConfig, seed: int, tokens: int
) -> Evaluation:
    """Measure both splits; ``tokens`` is how many were trained on so far."""
    state.model.eval()
    if training.evaluation == "exact":
        train_loss, val_loss = (
            exact_loss(state.model, split, training.block_size)
            for split in (splits.train, splits.validation)
        )
    else:
        chance = (
            state.batches
            if training.evaluation == "published"
            else stream(seed, f"evaluation/{state.step}", splits.train.device)
        )
        train_loss, val_loss = (
            sampled_loss(
                state.model,
                WindowSampler(split, training.batch_size, training.block_size),
                training.eval_batches,
                chance,
            )
            for split in (splits.train, splits.validation)
        )
    state.model.train()
    return record(state, train_loss, val_loss, tokens)


def record(state: TrainingState, train_loss: float, val_loss: float, tokens: int) -> Evaluation:
    """Add losses to the history of a state.

    Args:
        state: changed in place.
        train_loss: of the training split, in nats per character.
        val_loss: of the validation split, in nats per character.
        tokens: how many it was trained on so far.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    for split_name, nats in (("training", train_loss), ("validation", val_loss)):
        if not math.isfinite(nats):
            raise TrainingDivergedError(f"the {split_name} loss is {nats} at step {state.step}")
    evaluation = Evaluation(
        step=state.step,
        train_loss=train_loss,
        val_loss=val_loss,
        best_val_loss=min(state.best_val_loss, val_loss),
        training_s=state.training_s,
        tokens_per_s=tokens / state.training_s if state.training_s else 0.0,
    )
    state.history.append(evaluation)
    return evaluation


def _shared(tokens: npt.NDArray[np.int32]) -> Tensor:
    """A tensor over the memory of an array, which may be read-only: nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(tokens)
