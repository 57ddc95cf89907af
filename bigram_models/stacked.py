"""Models of one shape as one model, with a leading dimension for the members.

Shapes: M members, P values of a member, S steps, B batch, T time, V vocabulary, N tokens of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

if TYPE_CHECKING:
    from bigram_models.base import LanguageModel

RELATIVE_TOLERANCE = 1e-3  # of the largest logit: far above rounding, far below another model


@dataclass(frozen=True)
class StepWindows:
    """The windows of the members' batches in the present step, on one device."""

    tokens: Tensor  # the text, (N,) int32
    starts: Tensor  # the first token of each window, for some steps, (S, M, B) int64
    row: Tensor  # the present step among these, (1,) int64
    block_size: int  # T

    def ids(self) -> Tensor:
        """Return the tokens of the windows, (M, B, T + 1) int64."""
        _, M, B = self.starts.shape
        start_N = self.starts.index_select(0, self.row).flatten()
        windows_NT1 = self.tokens.unfold(0, self.block_size + 1, 1)  # a view
        return windows_NT1.index_select(0, start_N).view(M, B, -1).long()


class StackedModel:
    """Runs several models as one by `torch.func.vmap`; the models themselves need no change.

    All that is trained lies in one buffer ``values_MP``, a row for each member. The members'
    parameters are views of it: a training step on the stack updates its members too, which can be
    saved, evaluated or used for generation as they are.
    """

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        """Stack models whose `LanguageModel.stack_kind`, and tensors' names and shapes, agree."""
        self.members = members
        self.buffers: dict[str, Tensor] = {}  # each (M, ...), what is not trained
        tensors = [dict(member.named_parameters()) for member in members]
        names = self._trained_names()
        self._shapes = {name: tensors[0][name].shape for name in names}
        rows = [[own[name].detach().flatten() for name in names] for own in tensors]
        self.values_MP = torch.stack([torch.cat(row) for row in rows])
        self._one = self.values_MP.new_ones(())
        self.parameters = self.views(self.values_MP)  # each (M, ...), what is trained
        for name in tensors[0]:
            if name not in self.parameters:
                self.buffers[name] = torch.stack([own[name].detach() for own in tensors])
            stacked = self.parameters.get(name, self.buffers.get(name))
            assert stacked is not None
            for row, own in zip(stacked, tensors, strict=True):
                own[name].data = row
        self._stack_buffers()

    def views(self, values_MP: Tensor) -> dict[str, Tensor]:
        """Return the parts of a tensor shaped like ``values_MP``, (M, ...) each, by parameter."""
        parts = torch.split(values_MP, [shape.numel() for shape in self._shapes.values()], dim=1)
        return {
            name: part.view(-1, *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _trained_names(self) -> list[str]:
        """Return the names of the parameters that a loss depends on.

        As `torch.optim.AdamW` does, a stack leaves the others as they are, without weight decay.
        """
        member = self.members[0]
        before = [buffer.clone() for buffer in member.buffers()]
        trained = {n: p for n, p in member.named_parameters() if p.requires_grad}
        device = next(iter(trained.values())).device
        logits = member(torch.zeros(1, member.context_size, dtype=torch.int64, device=device))
        gradients = torch.autograd.grad(logits.sum(), list(trained.values()), allow_unused=True)
        for buffer, value in zip(member.buffers(), before, strict=True):
            buffer.data.copy_(value)  # in which a model may count its forward passes
        return [
            name for name, gradient in zip(trained, gradients, strict=True) if gradient is not None
        ]

    def _stack_buffers(self) -> None:
        members = self.members
        for name, _ in members[0].named_buffers():
            path, _, attribute = name.rpartition(".")
            owners = [member.get_submodule(path) for member in members]
            self.buffers[name] = torch.stack([getattr(owner, attribute) for owner in owners])
            for row, owner in zip(self.buffers[name], owners, strict=True):
                owner._buffers[attribute] = row

    def __call__(self, ids: Tensor) -> Tensor:
        """Return next-token logits (M, B, T, V) of ids (M, B, T), or of shared ids (B, T)."""
        return self._logits(self.parameters, ids)

    def _logits(self, parameters: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        run = torch.func.vmap(
            lambda tensors, own_ids: functional_call(self.members[0], tensors, (own_ids,)),
            in_dims=(0, 0 if ids.dim() == 3 else None),
        )
        logits_MBTV: Tensor = run({**parameters, **self.buffers}, ids)
        return logits_MBTV

    def loss(self, parameters: Mapping[str, Tensor], ids_MBT1: Tensor) -> Tensor:
        """Return the mean loss of each member (M,) in nats on its windows, for autograd."""
        return member_losses(self._logits(parameters, ids_MBT1[..., :-1]), ids_MBT1[..., 1:])

    def gradient(self, windows: StepWindows) -> tuple[Tensor, Tensor]:
        """Return the mean loss of each member (M,) in nats, and its gradient (M, P)."""
        values_MP = self.values_MP.detach().requires_grad_()
        loss_M = self.loss(self.views(values_MP), windows.ids())
        # With a gradient of loss_M in the place of this sum, autograd would import sympy: seconds.
        (gradient_MP,) = torch.autograd.grad(loss_M.sum(), values_MP)
        return loss_M.detach(), gradient_MP


def member_losses(logits_MBTV: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of each member (M,) in nats.

    Args:
        logits_MBTV: of the next tokens.
        targets: the next tokens of each member (M, B, T), or those that all share (B, T).
    """
    target_N = targets.expand(logits_MBTV.shape[:-1]).flatten()
    loss_N = F.cross_entropy(logits_MBTV.flatten(0, -2), target_N, reduction="none")
    return loss_N.view(len(logits_MBTV), -1).mean(1)


def off_by(together: Tensor, alone: Tensor) -> float:
    """Return how far the logits of a model among others are from its own, 0 if only by rounding.

    Returns:
        The largest difference if it is above `RELATIVE_TOLERANCE` or not a number.
    """
    off = float((together - alone).abs().max())
    return 0.0 if off <= RELATIVE_TOLERANCE * float(alone.abs().max()) else off


class LoopedModel(StackedModel):
    """Runs the members one after another, for models that `torch.func.vmap` cannot batch.

    Examples are recurrent layers, and models whose code depends on the values of tensors.
    """

    def _stack_buffers(self) -> None:
        """Leave each member its own buffers, whose names and shapes may differ."""
        for number, member in enumerate(self.members):
            for name, buffer in member.named_buffers():
                self.buffers[f"{number}.{name}"] = buffer

    def _logits(self, parameters: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        rows = ids if ids.dim() == 3 else [ids] * len(self.members)
        return torch.stack(
            [
                functional_call(member, {name: t[i] for name, t in parameters.items()}, (row,))
                for i, (member, row) in enumerate(zip(self.members, rows, strict=True))
            ]
        )
