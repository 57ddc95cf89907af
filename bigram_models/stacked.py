"""Models of one shape as one model, with a leading dimension for the members.

Shapes: M members, B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

if TYPE_CHECKING:
    from bigram_models.base import LanguageModel


class StackedModel:
    """Runs several models as one by `torch.func.vmap`; the models themselves need no change.

    The members' tensors become views of the stacked ones: a training step on the stack updates its
    members too, which can be saved, evaluated or used for generation as they are.
    """

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        """Stack models whose `LanguageModel.stack_kind`, and tensors' names and shapes, agree."""
        self.members = members
        self.parameters: dict[str, Tensor] = {}  # each (M, ...), those that are trained
        self.buffers: dict[str, Tensor] = {}  # those that are not
        tensors = [dict(member.named_parameters()) for member in members]
        for name, parameter in tensors[0].items():
            stacked = torch.stack([own[name].detach() for own in tensors])
            for row, own in zip(stacked, tensors, strict=True):
                own[name].data = row
            if parameter.requires_grad:
                self.parameters[name] = stacked.requires_grad_()
            else:
                self.buffers[name] = stacked
        self._stack_buffers()

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
        run = torch.func.vmap(
            lambda tensors, own_ids: functional_call(self.members[0], tensors, (own_ids,)),
            in_dims=(0, 0 if ids.dim() == 3 else None),
        )
        logits_MBTV: Tensor = run({**self.parameters, **self.buffers}, ids)
        return logits_MBTV


class LoopedModel(StackedModel):
    """Runs the members one after another, for models that `torch.func.vmap` cannot batch.

    Examples are recurrent layers, and models whose code depends on the values of tensors.
    """

    def _stack_buffers(self) -> None:
        """Leave each member its own buffers, whose names and shapes may differ."""
        for number, member in enumerate(self.members):
            for name, buffer in member.named_buffers():
                self.buffers[f"{number}.{name}"] = buffer

    def __call__(self, ids: Tensor) -> Tensor:
        rows = ids if ids.dim() == 3 else [ids] * len(self.members)
        return torch.stack(
            [
                functional_call(member, {name: t[i] for name, t in self.parameters.items()}, (row,))
                for i, (member, row) in enumerate(zip(self.members, rows, strict=True))
            ]
        )
