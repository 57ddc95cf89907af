"""Trials that take their steps together, in fewer and larger tensor operations.

The models of a stack have one shape; seeds, learning rates and what `LanguageModel.stack_kind`
leaves open may differ. Each trial keeps its own state, random stream and losses, and its results
are those of the trial alone but for rounding.

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

from bigram_models import FittedModel, LanguageModel
from bigram_models.stacked import LoopedModel
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler, consecutive_windows
from trainables.precision import computed_in
from trainables.training.adamw import adamw_
from trainables.training.evaluation import are_tables, evaluation_tokens, table_losses
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
OWN = ("learning_rate", "schedule", "warmup_steps")  # settings that may differ between members

logger = logging.getLogger(__name__)

StepsResult = Evaluation | TrainingDivergedError | None  # None: not evaluated yet


class NotStackableError(ValueError):
    """These models cannot be computed together; each can be trained alone."""


@dataclass
class Member:
    """A trial and its state, which the stack trains."""

    trial: TrialConfig
    state: TrainingState


def stack_shape(trial: TrialConfig) -> Hashable | None:
    """Return a value that is equal for trials of one stack; None if a trial takes no steps."""
    model, training = trial.model, trial.training
    if issubclass(model.model_class, FittedModel):
        return None
    kind = model.model_class.stack_kind(model.settings)
    shared = training.model_dump(exclude=set(OWN))
    return (model.variant, kind, *shared.values(), trial.corpus_digest)


class Stack:
    """Trains its members together; a member that is finished, or fails, leaves the stack."""

    def __init__(self, members: Sequence[Member], splits: Splits) -> None:
        """Make the members' tensors views of the stack's.

        Args:
            members: of one `stack_shape`, none of them finished, each with its own state.
            splits: the text, on the device of the states.

        Raises:
            NotStackableError: the stack computes other logits than its members.
        """
        self.members = list(members)
        self._splits = splits
        self._training = members[0].trial.training
        self._sampler = WindowSampler(
            splits.train, self._training.batch_size, self._training.block_size
        )
        self._bind()

    def advance(self, within_s: float = math.inf) -> list[StepsResult]:
        """Train all members to the next evaluation of any of them, or for some seconds.

        Args:
            within_s: seconds of steps; at least one is taken, and evaluations are completed.

        Returns:
            The result of each member, in order: its evaluation, None if it is not evaluated yet, or
            the error that it failed with. Members that failed or are finished leave the stack.
        """
        states = [member.state for member in self.members]
        targets = [next_evaluation(m.state, m.trial.training) for m in self.members]
        steps = min(target - state.step for target, state in zip(targets, states, strict=True))
        results: dict[int, StepsResult] = dict.fromkeys(range(len(states)))
        if steps:
            results.update(self._take(steps, within_s))
        due = [i for i, state in enumerate(states) if state.step == targets[i] and not results[i]]
        results.update(self._evaluated(due))
        staying = [
            member
            for i, member in enumerate(self.members)
            if not isinstance(results[i], TrainingDivergedError)
            and not member.state.finished(member.trial.training)
        ]
        if len(staying) < len(self.members):
            self.members = staying
            if staying:
                self._bind()
        return list(results.values())

    def _bind(self) -> None:
        """Stack the states of the present members."""
        states = [member.state for member in self.members]
        device, size = self._splits.train.device, len(states)
        self._bind_model([state.model for state in states])
        self._step_M = torch.tensor([float(state.step) for state in states], device=device)
        self._moments = {
            name: self._bind_moments(name, parameter)
            for name, parameter in self._model.parameters.items()
        }
        trainings = [member.trial.training for member in self.members]
        rates = {each: torch.tensor(list(map(each.learning_rate_at, range(each.max_steps))))
                 for each in set(trainings)}  # fmt: skip
        self._rate_SM = torch.stack([rates[each] for each in trainings], dim=1).to(device)
        generators = [state.batches for state in states]
        self._start_MB = torch.zeros(
            size, self._training.batch_size, dtype=torch.int64, device=generators[0].device
        )
        # The first step at which a member's loss was not finite, and that loss; 0 while all were.
        self._bad_M = torch.zeros(size, device=device)
        self._bad_loss_M = torch.zeros(size, device=device)
        self._repeated = Repeated(generators)

    def _bind_model(self, models: Sequence[LanguageModel]) -> None:
        """Stack the models, or else compute them in a loop."""
        try:
            self._model = type(models[0]).stacked(models)
            self._check()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # vmap has many for what it cannot do
            logger.info("the members of a stack are computed in a loop: %s", error)
            self._model = LoopedModel(models)
            self._check()

    def _bind_moments(self, name: str, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments (M, ...) of a parameter, of which the members' become views."""
        moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for i, member in enumerate(self.members):
            assert member.state.optimizer is not None
            own = dict(member.state.model.named_parameters())[name]
            values = member.state.optimizer.state[own]
            for stacked, moment in zip(moments, ("exp_avg", "exp_avg_sq"), strict=True):
                if moment in values:
                    stacked[i] = values[moment]
                values[moment] = stacked[i]
            values["step"] = self._step_M[i]
        return moments

    @torch.no_grad()
    def _check(self) -> None:
        """Compare the stack's logits for some tokens with those of its first and last member."""
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
            buffer.copy_(before[name])  # in which a model may count its forward passes

    def _take(self, steps: int, within_s: float) -> dict[int, StepsResult]:
        """Take steps; return the errors of members whose loss is not finite."""
        started = time.perf_counter()
        with computed_in(self._training.precision, self._splits.train.device):
            taken = self._repeated.run(self._step, steps, within_s)
        bad = self._bad_M.tolist()  # the only wait for the device
        seconds = (time.perf_counter() - started) / len(self.members)
        failed: dict[int, StepsResult] = {}
        for i, member in enumerate(self.members):
            member.state.training_s += seconds
            if bad[i]:
                message = f"the loss is {float(self._bad_loss_M[i])} at step {int(bad[i])}"
                failed[i] = TrainingDivergedError(message)
            else:
                member.state.step += taken
        return failed

    def _step(self) -> None:
        """Take one step of all members; no tensor that it reads or writes moves in memory."""
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
        """Draw a batch for each member from its own stream: inputs and next tokens (M, B, T)."""
        for start_B, member in zip(self._start_MB, self.members, strict=True):
            self._sampler.draw_starts(member.state.batches, out=start_B)
        inputs, targets = self._sampler.windows(self._start_MB.flatten())
        shape = (*self._start_MB.shape, -1)
        return inputs.view(shape), targets.view(shape)

    def _loss(self, inputs: Tensor, targets_MBT: Tensor) -> Tensor:
        """Return the mean loss of each member (M,) in nats."""
        logits_MBTV = self._model(inputs)
        loss = F.cross_entropy(logits_MBTV.flatten(0, -2), targets_MBT.flatten(), reduction="none")
        return loss.view(len(logits_MBTV), -1).mean(1)

    def _evaluated(self, due: Sequence[int]) -> dict[int, StepsResult]:
        """Evaluate some members; together if these are all, and the evaluation is exact."""
        results: dict[int, StepsResult] = {}
        together: list[tuple[float | None, float]] = []
        training = self._training
        parts = {self.members[i].state.train_part(training) for i in due}
        if len(due) == len(self.members) > 1 == len(parts) and training.evaluation == "exact":
            train_N = self._splits.train_part(parts.pop())
            train = [None] * len(due) if train_N is None else self._exact_losses(train_N)
            together = [*zip(train, self._exact_losses(self._splits.validation), strict=True)]
        for i in due:
            state, trial = self.members[i].state, self.members[i].trial
            training = trial.training
            tokens = state.step * training.batch_size * training.block_size
            try:
                if together:
                    results[i] = record(state, training, together[i], tokens)
                else:
                    results[i] = evaluate(state, self._splits, training, trial.seed, tokens)
            except TrainingDivergedError as error:
                results[i] = error
        return results

    @torch.no_grad()
    def _exact_losses(self, tokens_N: Tensor) -> list[float]:
        """Return the mean loss of each member over every token of a split but the first."""
        models = [member.state.model for member in self.members]
        if are_tables(models):
            return table_losses(models, tokens_N)
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
        for member in self.members:
            member.state.model.train(is_training)
