"""Models that see one token: a table of logits.

Shapes: M members of a stack, B batch, T time, V vocabulary, P values of a member.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.base import LanguageModel
from bigram_models.generation import Predictor, TablePredictor, quicker_device
from bigram_models.stacked import StackedModel


class TableModel(LanguageModel):
    """A model whose logits depend on the last token alone, so that a table holds all of them.

    The loss of a text is then exact from the counts of its pairs of neighbouring tokens.
    """

    @staticmethod
    @abstractmethod
    def table_of(parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the next token (..., V, V), a row for each token.

        Args:
            parameters: by name, of one model, or of several with a leading dimension.
        """

    def table(self) -> Tensor:
        """Return the logits of the next token (V, V), a row for each token."""
        return self.table_of(dict(self.named_parameters()))

    @classmethod
    def stacked(cls, members: Sequence[Self]) -> StackedModel:
        """Return one model of several, trained by the counts of pairs if tables hold its logits."""
        return StackedTables(members) if has_table(members[0]) else StackedModel(members)

    @classmethod
    def predictors(cls, members: Sequence[Self]) -> list[tuple[Sequence[int], Predictor]]:
        if not has_table(members[0]):
            return super().predictors(members)
        tables = [member.table() for member in members]
        return [(range(len(tables)), TablePredictor(tables, quicker_device(members)))]


def has_table(model: LanguageModel) -> TypeGuard[TableModel]:
    """Return whether `TableModel.table` holds all logits of a model.

    It need not for a subclass that has changed ``forward`` without ``table_of``, or the other way.
    """
    return isinstance(model, TableModel) and _owner(model, "forward") is _owner(model, "table_of")


def _owner(model: LanguageModel, method: str) -> type:
    """Return the class that defines a method of a model."""
    return next(owner for owner in type(model).__mro__ if method in vars(owner))


def table_loss(model: TableModel, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean cross entropy of the next tokens from the counts of pairs, in nats."""
    V = model.vocab_size
    codes_N = torch.add(targets_BT, inputs_BT, alpha=V).flatten()
    return loss_of_pairs(model.table(), minus_shares(codes_N, V))


def minus_shares(codes: Tensor, vocab_size: int, one: Tensor | None = None) -> Tensor:
    """Return minus the share of each pair of tokens among some pairs.

    Args:
        codes: id * V + next of each pair, (..., N) int64.
        vocab_size: V.
        one: the number 1 in torch's default dtype on the device; made here if it is not given.

    Returns:
        Numbers (..., V, V) of torch's default dtype; those of one text add up to -1.
    """
    V, N = vocab_size, codes.shape[-1]
    one = torch.ones((), device=codes.device) if one is None else one
    counts = one.new_zeros(*codes.shape[:-1], V * V)
    shares = counts.scatter_add_(-1, codes, one.expand(codes.shape)).div_(-N)
    return shares.view(*codes.shape[:-1], V, V)


def loss_of_pairs(table: Tensor, minus_share: Tensor) -> Tensor:
    """Return the mean loss (...) in nats of tables of logits (..., V, V), from `minus_shares`."""
    return (table.log_softmax(-1) * minus_share).sum((-2, -1))


class StackedTables(StackedModel):
    """Table models as one, whose loss comes from the counts of pairs."""

    members: Sequence[TableModel]

    def _logits(self, parameters: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        tables_MVV = self.members[0].table_of(parameters)
        numbers_M11 = torch.arange(len(tables_MVV), device=ids.device)[:, None, None]
        return F.embedding(ids + tables_MVV.shape[1] * numbers_M11, tables_MVV.flatten(0, 1))

    def loss(self, parameters: Mapping[str, Tensor], ids_MBT1: Tensor) -> Tensor:
        V = self.members[0].vocab_size
        if ids_MBT1[0, :, 1:].numel() < V:
            return super().loss(parameters, ids_MBT1)
        codes_MBT = torch.add(ids_MBT1[..., 1:], ids_MBT1[..., :-1], alpha=V)
        return loss_of_pairs(
            self.members[0].table_of(parameters), minus_shares(codes_MBT.flatten(1), V, self._one)
        )
