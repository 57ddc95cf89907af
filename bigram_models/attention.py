"""Causal attention over the embeddings, without projections.

Shapes: M members of a stack, B batch, T time (queries), S time (keys), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigram_models.base import LanguageModel, linear, normal_parameter, require_positive
from bigram_models.positions import POSITIONS, AddedTable, PositionType, Rotation
from bigram_models.stacked import StackedModel


class AttentionBigram(LanguageModel):
    """x = position(E[id]); logits = Linear(softmax(x x^T / sqrt(D), causal) x).

    x itself is query, key and value.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pe_type: PositionType = "rope"
        n_embd: int = 64  # width D of the embedding

        def __post_init__(self) -> None:
            require_positive(n_embd=self.n_embd)
            if self.pe_type == "rope" and self.n_embd % 2:
                raise ValueError(
                    f"n_embd={self.n_embd} is odd, but pe_type=rope rotates pairs of channels;"
                    " choose an even n_embd"
                )

    def __init__(
        self, config: Config, vocab_size: int, block_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(vocab_size, context_size=block_size)
        self.embed_VD = normal_parameter(vocab_size, config.n_embd, generator)
        self.head = linear(config.n_embd, vocab_size, generator)
        self.position: nn.Module = POSITIONS[config.pe_type](block_size, config.n_embd, generator)
        future_TS = torch.full((block_size, block_size), -torch.inf).triu(1)
        self.register_buffer("future_TS", future_TS, persistent=False)
        self.future_TS: Tensor

    @classmethod
    def stack_kind(cls, config: Config) -> Hashable:
        """Models of one width, whatever their positions."""
        return config.n_embd

    @classmethod
    def stacked(cls, members: Sequence[AttentionBigram]) -> StackedModel:
        """By one batched formula where positions differ in kind."""
        kinds = {type(member.position) for member in members}
        return StackedModel(members) if len(kinds) == 1 else MixedAttention(members)

    def forward(self, ids_BT: Tensor) -> Tensor:
        V, T = self.vocab_size, ids_BT.shape[1]
        # Both sides count products of length D; a lookup costs about as much again.
        if isinstance(self.position, AddedTable) and ids_BT.numel() * (T + V) >= 4 * V * V:
            return self._by_tables(ids_BT, self.position.table_TD[:T])
        x_BTD = self.position(F.embedding(ids_BT, self.embed_VD))
        score_BTS, x_BTD = causal_scores(x_BTD, self.future_TS[:T, :T])
        weight_BTS = score_BTS.softmax(-1)
        # Weights sum to one, so the head commutes with mixing: mix the smaller of D and V channels.
        mix_logits = self.embed_VD.shape[1] > V
        logits: Tensor = (
            weight_BTS @ self.head(x_BTD) if mix_logits else self.head(weight_BTS @ x_BTD)
        )
        return logits

    def _by_tables(self, ids_BT: Tensor, p_TD: Tensor) -> Tensor:
        """The same logits for x = E[id] + p, looked up in products of E, p and the head.

        A score is (E_a + p_t) . (E_b + p_s) multiplied out: the batch has more pairs of tokens than
        the vocabulary, so its pairs are computed once for all.
        """
        E_VD = self.embed_VD
        pair_BTS = ids_BT[:, :, None] * self.vocab_size + ids_BT[:, None, :]
        token_BTS = (E_VD @ E_VD.T).flatten().index_select(0, pair_BTS.flatten()).view_as(pair_BTS)
        across_BTS = F.embedding(ids_BT, E_VD @ p_TD.T)  # E_a . p_s, and transposed p_t . E_b
        score_BTS = token_BTS + across_BTS + across_BTS.mT + p_TD @ p_TD.T
        T, D = p_TD.shape
        weight_BTS = torch.add(self.future_TS[:T, :T], score_BTS, alpha=D**-0.5).softmax(-1)
        value_BTV = F.embedding(ids_BT, E_VD @ self.head.weight.T) + self.head(p_TD)
        logits: Tensor = weight_BTS @ value_BTV
        return logits


def causal_scores(x_BTD: Tensor, future_TS: Tensor) -> tuple[Tensor, Tensor]:
    """Scores x x^T / sqrt(D) (B, T, S), -inf for the future, and x for whatever reads it after.

    A step waits for memory more than for products, so its gradient is one product: the scores of a
    pair are the same both ways, and the other gradient of x comes in here to be added.

    Args:
        x_BTD: queries and keys.
        future_TS: -inf where the key is later than the query, else 0.
    """
    scores: tuple[Tensor, Tensor] = _CausalScores.apply(x_BTD, future_TS)  # type: ignore[no-untyped-call]
    return scores


class _CausalScores(torch.autograd.Function):
    @staticmethod
    def forward(x_BTD: Tensor, future_TS: Tensor) -> tuple[Tensor, Tensor]:
        scale = x_BTD.shape[-1] ** -0.5
        return torch.baddbmm(future_TS, x_BTD, x_BTD.mT, alpha=scale), x_BTD.view_as(x_BTD)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: object) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, d_score_BTS: Tensor, d_x_BTD: Tensor) -> tuple[Tensor, None]:
        (x_BTD,) = ctx.saved_tensors
        d_both_BTS = (d_score_BTS + d_score_BTS.mT).to(x_BTD.dtype)
        scale = x_BTD.shape[-1] ** -0.5
        return torch.baddbmm(d_x_BTD, d_both_BTS, x_BTD, alpha=scale), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, int | None], x_MBTD: Tensor, future: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        """All members of a stack as one batch; the future is the same to them."""
        x_MBTD = x_MBTD.movedim(in_dims[0], 0)
        future_TS = future if in_dims[1] is None else future.select(in_dims[1], 0)
        found = causal_scores(x_MBTD.flatten(0, 1), future_TS)
        return tuple(each.unflatten(0, x_MBTD.shape[:2]) for each in found), (0, 0)  # type: ignore[no-untyped-call]


class MixedAttention(StackedModel):
    """Attention models of one width with any positions: x = E[id] turned, and a table added.

    Where positions are added the turn is by nothing, where they turn the table has zeros.
    """

    members: Sequence[AttentionBigram]

    def _stack_buffers(self) -> None:
        V, D = self.members[0].embed_VD.shape
        future_TS = self.members[0].future_TS
        T = len(future_TS)
        self._future_TS = future_TS
        self._first_M11 = (
            V * torch.arange(len(self.members), device=future_TS.device)[:, None, None]
        )
        cos: list[Tensor] = []
        sin: list[Tensor] = []
        table: list[Tensor] = []
        zeros_TD = future_TS.new_zeros(T, D)
        for member in self.members:
            position = member.position
            if isinstance(position, Rotation):
                turn_TD = position.turn_TD2.repeat_interleave(2, dim=1)
                own = turn_TD.real, turn_TD.imag, zeros_TD
            else:
                assert isinstance(position, AddedTable)
                own = zeros_TD + 1, zeros_TD, position.table_TD
            for each, tensor_TD in zip((cos, sin, table), own, strict=True):
                each.append(tensor_TD)
        self._cos_M1TD, self._sin_M1TD, self._table_M1TD = (
            torch.stack(each)[:, None] for each in (cos, sin, table)
        )

    def __call__(self, ids: Tensor) -> Tensor:
        """Next-token logits (M, B, T, V) of ids (M, B, T), or of ids (B, T) that all share."""
        E_MVD, weight_MVD = self.parameters["embed_VD"], self.parameters["head.weight"]
        V, D, T = *E_MVD.shape[1:], ids.shape[-1]
        x_MBTD = self._turned(F.embedding(ids + self._first_M11, E_MVD.flatten(0, 1)), T)
        score, x = causal_scores(x_MBTD.flatten(0, 1), self._future_TS[:T, :T])
        x_MBTD = x.view(x_MBTD.shape)
        mixing_MBTS = score.softmax(-1).view(*x_MBTD.shape[:3], T)
        bias_M11V = self.parameters["head.bias"][:, None, None]
        # As in a model alone: mix the smaller of D and V channels.
        if D > V:
            return mixing_MBTS @ (x_MBTD @ weight_MVD.mT[:, None] + bias_M11V)
        return (mixing_MBTS @ x_MBTD) @ weight_MVD.mT[:, None] + bias_M11V

    def _turned(self, x_MBTD: Tensor, T: int) -> Tensor:
        across_MBTD = torch.stack((-x_MBTD[..., 1::2], x_MBTD[..., 0::2]), dim=-1).flatten(-2)
        turned_MBTD = x_MBTD * self._cos_M1TD[:, :, :T] + across_MBTD * self._sin_M1TD[:, :, :T]
        added_MBTD: Tensor = turned_MBTD + self._table_M1TD[:, :, :T]
        return added_MBTD
