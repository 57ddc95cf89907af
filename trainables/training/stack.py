"""Trials that take their steps as one: the same trials, in fewer and larger operations.

A stack has trials whose models have one shape; seeds, learning rates and what else
`LanguageModel.stack_kind` leaves open differ. Each keeps its own state, random stream and losses,
and is what it would be alone but for rounding.

Shapes: M members, B batch, T time, V vocabulary.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models import FittedModel
from bigram_models.stacked import LoopedModel
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler, consecutive_windows
from trainables.precision import computed_in
from trainables.training.evaluation import evaluation_tokens
from trainables.training.graph import Repeated
from trainables.training.loop import (
    Evaluation,
    Splits,
    TrainingDivergedError,
    TrainingState,
    evaluate,
    next_evaluation,
    record,
)

RELATIVE_TOLERANCE = 1e-3  # of the largest logit: far above rounding, far below another model
OWN = ("learning_rate", "schedule", "warmup_steps")  # what each member has of its own

logger = logging.getLogger(__name__)

Result = Evaluation | TrainingDivergedError | None


class NotStackableError(ValueError):
    """These models cannot be run as one; each can be trained alone."""


@dataclass
class Member:
    """A trial and its state, which the stack moves on."""

    trial: TrialConfig
    state: TrainingState


def stack_shape(trial: TrialConfig) -> Hashable | None:
    """Equal for trials that can be in one stack; None for one that is not trained by steps."""
    model, training = trial.model, trial.training
    if issubclass(model.model_class, FittedModel):
        return None
    kind = model.model_class.stack_kind(model.settings)
    shared = training.model_dump(exclude=set(OWN))
    return (model.variant, kind, *shared.values(), trial.corpus_digest)


class Stack:
    """Moves the states of its members on together; a finished one, or one that fails, drops out."""

    def __init__(self, members: Sequence[Member], splits: Splits) -> None:
        """Bind the members' tensors to the stack's.

        Args:
            members: of one `stack_shape`, none of them finished, each with its own state.
            splits: the text, on the device of the states.

        Raises:
            NotStackableError: the stack does not compute what the members compute.
        """
        self.members = list(members)
        self._splits = splits
        self._training = members[0].trial.training
        self._sampler = WindowSampler(
            splits.train, self._training.batch_size, self._training.block_size
        )
        self._bind()

    def advance(self, within_s: float = math.inf) -> list[Result]:
        """Move all members to where the first of them is evaluated next, or for some seconds.

        Args:
            within_s: seconds of steps; at least one is taken, and an evaluation is not cut short.

        Returns:
            What each member came to, in order: its losses, None where it is not evaluated yet, or
            why it failed; that one, and those that are finished, are in the stack no longer.
        """
        targets = [next_evaluation(one.state, one.trial.training) for one in self.members]
        states = [one.state for one in self.members]
        steps = min(target - state.step for target, state in zip(targets, states, strict=True))
        results: dict[int, Result] = dict.fromkeys(range(len(states)))
        if steps:
            results.update(self._take(steps, within_s))
        due = [i for i, state in enumerate(states) if state.step == targets[i] and not results[i]]
        results.update(self._evaluated(due))
        staying = [
            one
            for i, one in enumerate(self.members)
            if not isinstance(results[i], TrainingDivergedError)
            and not one.state.finished(one.trial.training)
        ]
        if len(staying) < len(self.members):
            self.members = staying
            if staying:
                self._bind()
        return list(results.values())

    def _bind(self) -> None:
        """Stack what the members have now."""
        states = [one.state for one in self.members]
        models = [state.model for state in states]
        device = self._splits.train.device
        try:
            self._model = type(models[0]).stacked(models)
            self._check()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # vmap has many for what it cannot do
            logger.info("the members of a stack are run one by one: %s", error)
            self._model = LoopedModel(models)
            self._check()
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._step_M = torch.tensor([float(state.step) for state in states], device=device)
        for name, parameter in self._model.parameters.items():
            moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
            for i, state in enumerate(states):
                assert state.optimizer is not None
                own = dict(state.model.named_parameters())[name]
                had = state.optimizer.state[own]
                for of_all, moment in zip(moments, ("exp_avg", "exp_avg_sq"), strict=True):
                    if moment in had:
                        of_all[i] = had[moment]
                    had[moment] = of_all[i]
                had["step"] = self._step_M[i]
            self._moments[name] = moments
        trainings = [one.trial.training for one in self.members]
        rates = {one: torch.tensor(list(map(one.learning_rate_at, range(one.max_steps))))
                 for one in set(trainings)}  # fmt: skip
        self._rate_SM = torch.stack([rates[one] for one in trainings], dim=1).to(device)
        size = len(states)
        generators = [state.batches for state in states]
        self._start_MB = torch.zeros(
            size, self._training.batch_size, dtype=torch.int64, device=generators[0].device
        )
        # The first step at which a member's loss was not finite, and that loss; 0 while all were.
        self._bad_M = torch.zeros(size, device=device)
        self._bad_loss_M = torch.zeros(size, device=device)
        self._repeated = Repeated(generators)

    @torch.no_grad()
    def _check(self) -> None:
        """Compare the stack's logits for some text with those of its first and last member."""
        before = {name: buffer.clone() for name, buffer in self._model.buffers.items()}
        ids_BT = self._sampler.windows_NT1[:4, :-1].long()
        together_MBTV = self._model(ids_BT)
        for i in {0, len(self.members) - 1}:
            alone_BTV = self.members[i].state.model(ids_BT)
            if alone_BTV.shape != together_MBTV[i].shape:
                raise NotStackableError("the logits of a stack have another shape")
            off = float((together_MBTV[i] - alone_BTV).abs().max())
            if not off <= RELATIVE_TOLERANCE * float(alone_BTV.abs().max()):
                raise NotStackableError(
                    f"a model gives other logits in a stack than alone, off by {off:.2g}"
                )
        for name, buffer in self._model.buffers.items():
            buffer.copy_(before[name])  # a model may count there how often it runs

    def _take(self, steps: int, within_s: float) -> dict[int, Result]:
        """Take steps; what became of members whose loss is not finite."""
        started = time.perf_counter()
        with computed_in(self._training.precision, self._splits.train.device):
            taken = self._repeated.run(self._step, steps, within_s)
        bad = self._bad_M.tolist()  # the only wait for the device
        seconds = (time.perf_counter() - started) / len(self.members)
        failed: dict[int, Result] = {}
        for i, one in enumerate(self.members):
            one.state.training_s += seconds
            if bad[i]:
                said = f"the loss is {float(self._bad_loss_M[i])} at step {int(bad[i])}"
                failed[i] = TrainingDivergedError(said)
            else:
                one.state.step += taken
        return failed

    def _step(self) -> None:
        """One step of all members; everything that it reads and writes stays where it is."""
        loss_M = self._loss(*self._drawn())
        parameters = self._model.parameters
        gradients = torch.autograd.grad(loss_M.sum(), list(parameters.values()), allow_unused=True)
        with torch.no_grad():
            rate_M = self._rate_SM.gather(0, self._step_M.long()[None])[0]
            self._step_M += 1
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                if gradient is not None:
                    adamw_(parameter, gradient, *self._moments[name], self._step_M, rate_M)
            is_bad_M = ~loss_M.isfinite() & (self._bad_M == 0)
            torch.where(is_bad_M, self._step_M, self._bad_M, out=self._bad_M)
            torch.where(is_bad_M, loss_M, self._bad_loss_M, out=self._bad_loss_M)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """A batch for each member from its own stream: inputs and next tokens (M, B, T)."""
        for start_B, one in zip(self._start_MB, self.members, strict=True):
            self._sampler.draw_starts(one.state.batches, out=start_B)
        inputs, targets = self._sampler.windows(self._start_MB.flatten())
        shape = (*self._start_MB.shape, -1)
        return inputs.view(shape), targets.view(shape)

    def _loss(self, inputs: Tensor, targets_MBT: Tensor) -> Tensor:
        """Mean loss of each member (M,)."""
        logits_MBTV = self._model(inputs)
        loss = F.cross_entropy(logits_MBTV.flatten(0, -2), targets_MBT.flatten(), reduction="none")
        return loss.view(len(logits_MBTV), -1).mean(1)

    def _evaluated(self, due: Sequence[int]) -> dict[int, Result]:
        """Evaluate some members: together where these are all, and the evaluation is exact."""
        results: dict[int, Result] = {}
        together: list[list[float]] | None = None
        if len(due) == len(self.members) > 1 and self._training.evaluation == "exact":
            splits = (self._splits.train, self._splits.validation)
            together = [self._exact_losses(split) for split in splits]
        for i in due:
            one = self.members[i]
            training = one.trial.training
            tokens = one.state.step * training.batch_size * training.block_size
            try:
                if together:
                    losses = together[0][i], together[1][i]
                    results[i] = record(one.state, *losses, tokens)
                else:
                    results[i] = evaluate(one.state, self._splits, training, one.trial.seed, tokens)
            except TrainingDivergedError as error:
                results[i] = error
        return results

    @torch.no_grad()
    def _exact_losses(self, tokens_N: Tensor) -> list[float]:
        """Mean loss of each member over every token of a split but the first."""
        size, block_size = len(self.members), self._training.block_size
        self._set_training(False)
        total_M = torch.zeros(size, dtype=torch.float64, device=tokens_N.device)
        at_once = max(block_size, evaluation_tokens(tokens_N.device) // size)
        for inputs_BT, targets_BT in consecutive_windows(tokens_N, block_size, at_once):
            mean_M = self._loss(inputs_BT, targets_BT.expand(size, -1, -1))
            total_M += mean_M.double() * targets_BT.numel()
        self._set_training(True)
        losses: list[float] = (total_M / (len(tokens_N) - 1)).tolist()
        return losses

    def _set_training(self, is_training: bool) -> None:
        for one in self.members:
            one.state.model.train(is_training)


def adamw_(
    parameter: Tensor,
    gradient: Tensor,
    average: Tensor,
    square: Tensor,
    step_M: Tensor,
    rate_M: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    """A step of AdamW (Loshchilov & Hutter 2019), for members with steps and rates of their own.

    In place; the defaults are those of `torch.optim.AdamW`.

    Args:
        parameter: (M, ...).
        gradient: of it.
        average: the running mean of gradients.
        square: that of their squares.
        step_M: updates so far, this one included.
        rate_M: the learning rates.
    """
    shape = (-1, *(1 for _ in parameter.shape[1:]))
    steps, rate = step_M.double().view(shape), rate_M.double().view(shape)
    step_size = (rate / (1 - betas[0] ** steps)).to(parameter.dtype)
    unbias = (1 - betas[1] ** steps).rsqrt().to(parameter.dtype)
    parameter.mul_((1 - rate * weight_decay).to(parameter.dtype))
    average.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    parameter.sub_(average.mul(step_size).div_(square.sqrt().mul_(unbias).add_(eps)))
