"""Trials that take their steps together, in fewer and larger tensor operations.

The models of a stack have one shape; seeds, learning rates and what `LanguageModel.stack_kind`
leaves open may differ. Each trial keeps its own state, batches and losses, and its results are
those of the trial alone but for rounding.

Shapes: M members, B batch, T time, V vocabulary.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigram_models import FittedModel, LanguageModel
from bigram_models.stacked import LoopedModel, StepWindows, member_losses, off_by
from trainables.config import TrialConfig
from trainables.data.batches import consecutive_windows
from trainables.precision import computed_in
from trainables.training.adamw import adamw_
from trainables.training.evaluation import are_tables, evaluating, evaluation_tokens, table_losses
from trainables.training.graph import Repeated
from trainables.training.loop import (
    Evaluation,
    Splits,
    TrainingDivergedError,
    TrainingState,
    evaluate,
    final_test_loss,
    next_evaluation,
    record,
)
from trainables.training.step_table import StepTable

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
    """Return a value that is equal for trials of one stack; None for trials that train alone.

    These take no steps, or draw batches and evaluations from one stream.
    """
    model, training = trial.model, trial.training
    if issubclass(model.model_class, FittedModel) or training.evaluation == "published":
        return None
    kind = model.model_class.stack_kind(model.settings)
    shared = training.model_dump(exclude=set(OWN))
    return (model.variant, kind, *shared.values(), trial.corpus_digest, trial.is_tested)


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
        self._bind_model([state.model for state in states])
        values_MP = self._model.values_MP
        self._average_MP, self._square_MP = torch.zeros(2, *values_MP.shape).to(values_MP)
        for name, moment_MP in (("exp_avg", self._average_MP), ("exp_avg_sq", self._square_MP)):
            self._bind_moments(name, self._model.views(moment_MP))
        self._count_updates()
        windows = len(self._splits.train) - self._training.block_size
        trials = [member.trial for member in self.members]
        self._table = StepTable(trials, windows, values_MP.device, values_MP.dtype)
        self._windows = StepWindows(
            self._splits.train,
            self._table.starts_SMB,
            self._table.row_1,
            self._training.block_size,
        )
        self._repeated = Repeated(values_MP.device)

    def _bind_model(self, models: Sequence[LanguageModel]) -> None:
        """Stack the models, or else compute them in a loop."""
        if len({parameter.dtype for parameter in models[0].parameters()}) > 1:
            raise NotStackableError("the parameters of a model have several types")
        try:
            self._model = type(models[0]).stacked(models)
            self._check()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # vmap has many for what it cannot do
            logger.info("the members of a stack are computed in a loop: %s", error)
            self._model = LoopedModel(models)
            self._check()

    def _bind_moments(self, name: str, stacked: Mapping[str, Tensor]) -> None:
        """Copy a moment of each member's parameters to the stack, and make it a view of that."""
        for i, member in enumerate(self.members):
            assert member.state.optimizer is not None
            own = dict(member.state.model.named_parameters())
            for parameter, moments in stacked.items():
                values = member.state.optimizer.state[own[parameter]]
                if name in values:
                    moments[i] = values[name]
                values[name] = moments[i]

    def _count_updates(self) -> None:
        """Tell each member's optimizer how many updates it has taken."""
        steps = [float(member.state.step) for member in self.members]
        steps_M = torch.tensor(steps, device=self._splits.train.device)
        for step, member in zip(steps_M, self.members, strict=True):
            assert member.state.optimizer is not None
            own = dict(member.state.model.named_parameters())
            for name in self._model.parameters:
                member.state.optimizer.state[own[name]]["step"] = step

    @torch.no_grad()
    def _check(self) -> None:
        """Compare the stack's logits for some tokens with those of its first and last member."""
        before = {name: buffer.clone() for name, buffer in self._model.buffers.items()}
        windows_NT = self._splits.train.unfold(0, self._training.block_size, 1)
        ids_BT = windows_NT[:4].long()
        together_MBTV = self._model(ids_BT)
        for i in {0, len(self.members) - 1}:
            alone_BTV = self.members[i].state.model(ids_BT)
            if alone_BTV.shape != together_MBTV[i].shape:
                raise NotStackableError("the logits of a stack have another shape")
            if off := off_by(together_MBTV[i], alone_BTV):
                raise NotStackableError(
                    f"a model gives other logits in a stack than alone, off by {off:.2g}"
                )
        for name, buffer in self._model.buffers.items():
            buffer.copy_(before[name])  # in which a model may count its forward passes

    def _take(self, steps: int, within_s: float) -> dict[int, StepsResult]:
        """Take steps; return the errors of members whose loss is not finite."""
        started = time.perf_counter()
        taken, failed = 0, dict[int, StepsResult]()
        while taken < steps:
            rows = min(steps - taken, self._table.rows)
            self._table.fill(self._steps_after(taken), rows)
            with computed_in(self._training.precision, self._splits.train.device):
                left_s = within_s - (time.perf_counter() - started)
                written = self._repeated.run(self._step, rows, left_s)
            if self._splits.train.is_cuda:
                self._table.draw_ahead(self._steps_after(taken + written))
            for i, (row, loss) in self._table.first_bad(written).items():
                at_step = self.members[i].state.step + taken + row + 1
                error = TrainingDivergedError(f"the loss is {loss} at step {at_step}")
                failed.setdefault(i, error)
            taken += written
            if written < rows:
                break
        seconds = (time.perf_counter() - started) / len(self.members)
        for i, member in enumerate(self.members):
            member.state.training_s += seconds
            member.state.step += 0 if i in failed else taken
        self._count_updates()
        return failed

    def _steps_after(self, taken: int) -> list[int]:
        """Return the number of updates of each member, with those that it has just taken."""
        return [member.state.step + taken for member in self.members]

    def _step(self) -> None:
        """Take one step of all members; no tensor that it reads or writes moves in memory."""
        table = self._table
        loss_M, gradient_MP = self._model.gradient(self._windows)
        adamw_(
            self._model.values_MP,
            gradient_MP,
            self._average_MP,
            self._square_MP,
            table.scalars_S3M,
            table.row_1,
        )
        table.losses_SM.index_copy_(0, table.row_1, loss_M[None])
        table.row_1 += 1

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
                    test_loss = final_test_loss(state, self._splits, training)
                    results[i] = record(state, training, together[i], tokens, test_loss)
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
        total_M = torch.zeros(size, dtype=torch.float64, device=tokens_N.device)
        at_once = max(block_size, evaluation_tokens(tokens_N.device) // size)
        with evaluating(models):
            for inputs_BT, targets_BT in consecutive_windows(tokens_N, block_size, at_once):
                loss_M = member_losses(self._model(inputs_BT), targets_BT)
                total_M += loss_M.double() * targets_BT.numel()
        losses: list[float] = (total_M / (len(tokens_N) - 1)).tolist()
        return losses
