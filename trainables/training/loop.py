"""The training loop, which knows neither Ray nor MLflow.

`advance` trains a `TrainingState` to its next evaluation or for some seconds, `train` to the end.
The caller decides when to save, report or stop; between evaluations nothing waits for the device.
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
from trainables.config import EvaluatingTrain, TrainingConfig, TrialConfig
from trainables.data.batches import WindowSampler, initial_stream, stream
from trainables.data.corpus import Corpus
from trainables.precision import computed_in
from trainables.training.evaluation import batch_loss, evaluating, exact_loss, sampled_loss
from trainables.training.optimizer import AdamW


class TrainingDivergedError(ArithmeticError):
    """A loss is not finite; the message names the step."""


@dataclass(frozen=True)
class Splits:
    """The token ids of the splits, (N,) int32, on the device that trains."""

    train: Tensor
    validation: Tensor
    test: Tensor | None = None  # read by the last evaluation alone; None for what is not tested

    @staticmethod
    def of(corpus: Corpus, device: torch.device, with_test: bool = False) -> Splits:
        """Return the splits of a corpus as tensors; on a CPU they share its memory."""
        splits = [corpus.train, corpus.validation]
        splits += [corpus.test] if with_test and len(corpus.test) else []
        return Splits(*(_shared(split).to(device) for split in splits))

    @property
    def without_test(self) -> Splits:
        """The same splits for trials that are not tested."""
        return Splits(self.train, self.validation)

    def train_part(self, part: EvaluatingTrain) -> Tensor | None:
        """Return the tokens of a part of the training split, (N,) int32, or None if it has none."""
        if part == "slice":
            return self.train[: len(self.validation)]
        return self.train if part == "exact" else None


@dataclass(frozen=True)
class Evaluation:
    """Losses after a step, in nats per character."""

    step: int
    train_loss: float | None  # of train_part; None if that is "end"
    val_loss: float
    best_val_loss: float  # the lowest so far
    training_s: float  # spent in steps so far
    tokens_per_s: float  # in these seconds
    train_part: EvaluatingTrain = "exact"  # of the training split
    test_loss: float | None = None  # exact, of the final weights of a trial that is tested


@dataclass
class TrainingState:
    """All that a trial needs to resume bit for bit."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer | None  # None for a model that is fitted, not trained
    batches: torch.Generator | None  # of `evaluation: published`; else they depend on the step
    step: int = 0  # optimizer updates so far
    training_s: float = 0.0  # spent in steps, without evaluation
    history: list[Evaluation] = field(default_factory=list)  # of this trial, from its start

    @property
    def last(self) -> Evaluation | None:
        """The newest evaluation, or None before the first."""
        return self.history[-1] if self.history else None

    @property
    def best_val_loss(self) -> float:
        """Lowest validation loss so far in nats per character, infinite before the first."""
        return math.inf if self.last is None else self.last.best_val_loss

    def finished(self, training: TrainingConfig) -> bool:
        """Return whether nothing is left to train."""
        return self.last is not None and self.is_at_end(training)

    def is_at_end(self, training: TrainingConfig) -> bool:
        """Return whether no step is left to take."""
        return self.optimizer is None or self.step == training.last_step

    def train_part(self, training: TrainingConfig) -> EvaluatingTrain:
        """Return the part of the training split that an evaluation at this step reads."""
        return "exact" if self.is_at_end(training) else training.train_part


def initial_state(
    trial: TrialConfig, vocab_size: int, device: torch.device | str = "cpu"
) -> TrainingState:
    """Return the state of a trial before its first step.

    The initial values are drawn on the CPU, so they do not depend on the device.
    """
    training = trial.training
    chance = initial_stream(trial.seed)
    model = trial.model.build(vocab_size, training.block_size, chance)
    model.to(device)
    optimizer = None
    if not isinstance(model, FittedModel):
        optimizer = AdamW(model.parameters(), lr=training.learning_rate, fused=True)
    return TrainingState(model, optimizer, chance if training.evaluation == "published" else None)


def train(
    state: TrainingState, splits: Splits, training: TrainingConfig, seed: int
) -> Iterator[Evaluation]:
    """Train a state to its end.

    The arguments and errors are those of `advance`.

    Yields:
        The evaluations every ``eval_every`` steps and after the last one (`Evaluating` has the
        steps of the published study); one for a fitted model; none for a finished state.
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
    """Train a state to its next evaluation, or for some seconds.

    The steps at which a state is paused, saved and resumed do not change its results.

    Args:
        state: not finished; changed in place.
        splits: the text, on the device of the state.
        training: batch, steps, learning rate and evaluation.
        seed: the seed of the trial, for sampled evaluation.
        within_s: seconds of steps; at least one is taken, and an evaluation is always completed.

    Returns:
        The evaluation; None if the time was up before it.

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
        take_steps(state, sampler, seed, target - state.step, within_s, training.learning_rate_at)
    if state.step < target:
        return None
    tokens = state.step * training.batch_size * training.block_size
    return evaluate(state, splits, training, seed, tokens)


def next_evaluation(state: TrainingState, training: TrainingConfig) -> int:
    """Return the step of the next evaluation."""
    if state.last is None and training.evaluation == "published":
        return 0  # the study evaluated before its first step
    evaluated = state.last.step if state.last else 0
    return min((evaluated // training.eval_every + 1) * training.eval_every, training.last_step)


def take_steps(
    state: TrainingState,
    sampler: WindowSampler,
    seed: int,
    steps: int,
    within_s: float = math.inf,
    rate_at: Callable[[int], float] | None = None,
) -> None:
    """Take optimizer steps, then check once that every loss is finite.

    Args:
        state: changed in place.
        sampler: of the training split.
        seed: the seed of the trial, for its batches.
        steps: how many.
        within_s: the first step that ends after these seconds is the last one.
        rate_at: the learning rate by the number of updates before; None leaves it as it is.

    Raises:
        TrainingDivergedError: naming the first step whose loss is not finite.
    """
    if steps == 0:
        return
    assert state.optimizer is not None
    started = time.perf_counter()
    # One tensor: small ones that stay would keep the heap from giving back the large ones between.
    losses = torch.zeros(steps, device=sampler.windows_NT1.device)
    taken = 0
    own = state.batches
    batches = sampler.drawn(own) if own else sampler.batches(seed, state.step)
    for step in range(state.step, state.step + steps):
        if rate_at:
            _set_learning_rate(state.optimizer, rate_at(step))
        losses[taken] = _take_step(state.model, state.optimizer, *next(batches))
        taken += 1
        if time.perf_counter() - started > within_s:
            break
    is_finite = losses.isfinite().tolist()  # the only wait for the device
    state.training_s += time.perf_counter() - started
    if not all(is_finite):
        first = is_finite.index(False)
        at_step = state.step + first + 1
        raise TrainingDivergedError(f"the loss is {float(losses[first])} at step {at_step}")
    state.step += taken


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _take_step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    inputs_BT: Tensor,
    targets_BT: Tensor,
) -> Tensor:
    """Take one optimizer step; return the loss before it, a scalar in nats."""
    loss = batch_loss(model, inputs_BT, targets_BT)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def evaluate(
    state: TrainingState, splits: Splits, training: TrainingConfig, seed: int, tokens: int
) -> Evaluation:
    """Evaluate a state on both splits, and add the losses to its history.

    Args:
        state: changed in place.
        splits: the text, on the device of the state.
        training: its evaluation, and the shape of batches.
        seed: the seed of the trial, for sampled evaluation.
        tokens: how many it was trained on so far.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    state.model.eval()
    if training.evaluation == "exact":
        train_N = splits.train_part(state.train_part(training))
        train_loss = None
        if train_N is not None:
            train_loss = exact_loss(state.model, train_N, training.block_size)
        val_loss = exact_loss(state.model, splits.validation, training.block_size)
    else:
        chance = (
            state.batches
            if state.batches
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
    test_loss = final_test_loss(state, splits, training)
    return record(state, training, (train_loss, val_loss), tokens, test_loss)


def final_test_loss(state: TrainingState, splits: Splits, training: TrainingConfig) -> float | None:
    """Return the exact loss on the test split; None before the end, or without such a split."""
    if splits.test is None or not state.is_at_end(training):
        return None
    with evaluating([state.model]):
        return exact_loss(state.model, splits.test, training.block_size)


def record(
    state: TrainingState,
    training: TrainingConfig,
    losses: tuple[float | None, float],
    tokens: int,
    test_loss: float | None = None,
) -> Evaluation:
    """Add losses to the history of a state.

    Args:
        state: changed in place.
        training: its evaluation.
        losses: of `TrainingState.train_part`, None if that has no tokens, and of the validation
            split, in nats per character.
        tokens: how many it was trained on so far.
        test_loss: from `final_test_loss`.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    train_loss, val_loss = losses
    named = {"training": train_loss, "validation": val_loss, "test": test_loss}
    for split_name, loss in named.items():
        if loss is not None and not math.isfinite(loss):
            raise TrainingDivergedError(f"the {split_name} loss is {loss} at step {state.step}")
    evaluation = Evaluation(
        step=state.step,
        train_loss=train_loss,
        val_loss=val_loss,
        best_val_loss=min(state.best_val_loss, val_loss),
        training_s=state.training_s,
        tokens_per_s=tokens / state.training_s if state.training_s else 0.0,
        train_part=state.train_part(training),
        test_loss=test_loss,
    )
    state.history.append(evaluation)
    return evaluation


def _shared(tokens: npt.NDArray[np.int32]) -> Tensor:
    """Return a tensor that shares an array's memory, which may be read-only: it is only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(tokens)
