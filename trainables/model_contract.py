"""The contract of `LanguageModel`, checked on one model of a user.

Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from bigram_models import FittedModel, LanguageModel
from trainables.errors import UserError, brief
from trainables.training.evaluation import next_token_loss
from trainables.variants import faults_of

TOLERANCE = 1e-4  # of logits, relative: rounding makes smaller differences
CHANGED = 16  # tokens: the places whose token is changed, and the last one


@dataclass(frozen=True)
class Candidate:
    """A model to check. Each check raises `UserError` if the model breaks the contract."""

    name: str  # in messages
    model: LanguageModel
    vocab_size: int

    def check_parts(self) -> None:
        """Check the context size, the parameters, and the tensors of a fitted model."""
        model, context_size = self.model, getattr(self.model, "context_size", None)
        if type(context_size) is not int or context_size < 1:
            raise UserError(
                f"{self.name}: its context_size is {brief(context_size)}; it must be a whole number"
                " of 1 or more, which super().__init__(vocab_size, context_size=block_size) sets"
            )
        if any(is_lazy(parameter) for parameter in model.parameters()):
            raise UserError(
                f"{self.name}: some parameters have no size yet, as in lazy layers; give the sizes"
            )
        if isinstance(model, FittedModel):
            if not model.state_dict():
                raise UserError(
                    f"{self.name} has no tensor to keep the result of `fit`; make one with"
                    " self.register_buffer in __init__"
                )
        elif not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(
                f"{self.name} has no parameter to train; make one with torch.nn.Parameter, or"
                " derive from bigram_models.FittedModel"
            )

    def logits(self, ids_BT: Tensor, purpose: str) -> Tensor:
        """Check the logits of token ids (B, T) and return them (B, T, V).

        Args:
            ids_BT: the tokens.
            purpose: what they stand for, in messages.
        """
        given = tuple(ids_BT.shape)
        with faults_of(
            f"{self.name}: forward must take token ids {given}, in {purpose}, and fails"
        ):
            logits: object = self.model(ids_BT)
        if not isinstance(logits, Tensor):
            raise UserError(
                f"{self.name}: forward returns {type(logits).__name__}, not a tensor of logits"
                " (B, T, V)"
            )
        expected = (*given, self.vocab_size)
        if tuple(logits.shape) != expected:
            raise UserError(
                f"{self.name}: in {purpose}, forward returns shape {tuple(logits.shape)} for token"
                f" ids {given}; it must be (B, T, V) = {expected}, a logit for each of the"
                f" {self.vocab_size} characters"
            )
        if logits.dtype != torch.float32:
            raise UserError(
                f"{self.name}: forward returns {logits.dtype}; logits are torch.float32"
            )
        odd = logits.detach()[~logits.isfinite()]
        if len(odd):
            raise UserError(
                f"{self.name}: forward returns logits that are not finite, {len(odd)} of"
                f" {logits.numel()}, such as {float(odd[0])}; each must be a number, -1e9 for what"
                " cannot come next"
            )
        return logits

    def check_step(self, ids_BT: Tensor, purpose: str) -> None:
        """Check the gradient of a loss; the model takes no step."""
        loss = next_token_loss(self.logits(ids_BT, purpose), ids_BT)
        if not loss.requires_grad:
            raise UserError(
                f"{self.name}: its logits have no gradient, so nothing would be trained; compute"
                " them from the parameters, without .detach(), .data or torch.no_grad()"
            )
        with faults_of(f"{self.name}: its backward pass fails, in {purpose}"):
            loss.backward()  # type: ignore[no-untyped-call]
        named = self.model.named_parameters()
        gradients = {name: each.grad for name, each in named if each.grad is not None}
        self.model.zero_grad()
        if not gradients:
            raise UserError(f"{self.name}: its logits depend on no parameter of it; use them")
        for name, gradient in gradients.items():
            if gradient.layout is not torch.strided:
                raise UserError(
                    f"{self.name}: the gradient of {name} is sparse, which AdamW cannot use; make"
                    " its nn.Embedding without sparse=True"
                )
            if not gradient.isfinite().all():
                raise UserError(
                    f"{self.name}: the gradient of {name} is not finite at the start, so the loss"
                    " would be nan after a step; look for divisions by zero, and for roots and"
                    " logarithms of zero"
                )

    def check_repeatable(self, ids_BT: Tensor) -> None:
        """Check that two evaluations of the same text are equal."""
        logits_BTV = self.logits(ids_BT, "evaluation").clone()
        difference = float((self.logits(ids_BT, "evaluation") - logits_BTV).abs().max())
        if difference > _tolerance(logits_BTV):
            raise UserError(
                f"{self.name}: two evaluations of the same text differ, logits by up to"
                f" {difference:.3g}; outside training (self.training) nothing may be random, and"
                " nothing may stay from the call before"
            )

    def check_causal(self, ids_BT: Tensor) -> None:
        """Check that no token changes the logits before it."""
        logits_BTV = self.logits(ids_BT, "evaluation").clone()
        last = ids_BT.shape[1] - 1
        for place in sorted({*range(1, min(CHANGED, last + 1)), last} - {0}):
            changed_BT = ids_BT.clone()
            changed_BT[:, place] = (changed_BT[:, place] + 1) % self.vocab_size
            changed_BTV = self.logits(changed_BT, "evaluation")
            difference = float((changed_BTV - logits_BTV)[:, :place].abs().max())
            if difference > _tolerance(logits_BTV[:, :place]):
                raise UserError(
                    f"{self.name} sees the future: its logits at earlier places change with the"
                    f" token at place {place}, so its loss would be too good; let each place use"
                    " the tokens up to itself alone"
                )

    @torch.no_grad()
    def is_random_in_training(self, ids_BT: Tensor) -> bool:
        """Return whether two forward passes in training differ."""
        first, second = (self.logits(ids_BT, "training").clone() for _ in range(2))
        return not torch.equal(first, second)


def _tolerance(logits: Tensor) -> float:
    return TOLERANCE * (1 + float(logits.abs().max()))


def have_equal_values(model: LanguageModel, other: LanguageModel) -> bool:
    """Return whether two models of one class have the same parameters and buffers."""
    state, others = model.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(state[k], others[k]) for k in state)
