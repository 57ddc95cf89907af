"""Causal attention over the embeddings, without projections.

Shapes: B batch, T time (queries), S time (keys), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.attention_generation import attention_predictors
from bigram_models.base import LanguageModel, linear, normal_parameter, require_positive
from bigram_models.causal_scores import causal_scores
from bigram_models.fused_attention import FusedAttention
from bigram_models.generation import Predictor
from bigram_models.mixed_attention import MixedAttention
from bigram_models.positions import ENCODINGS, EncodingName
from bigram_models.stacked import LoopedModel, StackedModel


class AttentionBigram(LanguageModel):
    """x = position(E[id]); logits = Linear(softmax(x x^T / sqrt(D), causal) x).

    x itself is query, key and value.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pe_type: EncodingName = "rope"
        n_embd: int = 64  # width D of the embedding

        def __post_init__(self) -> None:
            require_positive(n_embd=self.n_embd)
            ENCODINGS[self.pe_type].check_width(self.n_embd)

    def __init__(
        self, config: Config, vocab_size: int, block_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(vocab_size, context_size=block_size)
        self.embed_VD = normal_parameter(vocab_size, config.n_embd, generator)
        self.head = linear(config.n_embd, vocab_size, generator)
        self.position = ENCODINGS[config.pe_type](block_size, config.n_embd, generator)
        future_TS = torch.full((block_size, block_size), -torch.inf).triu(1)
        self.register_buffer("future_TS", future_TS, persistent=False)
        self.future_TS: Tensor

    @classmethod
    def stack_kind(cls, config: object) -> Hashable:
        """Return the width: models of one width are stacked, whatever their encodings."""
        assert isinstance(config, cls.Config)
        return config.n_embd

    @classmethod
    def stacked(cls, members: Sequence[Self]) -> StackedModel:
        """Return one model of several, by the fastest way that their encodings allow."""
        formulas = [member.position.rotate_and_add() for member in members]
        known = [formula for formula in formulas if formula is not None]
        is_even = members[0].embed_VD.shape[1] % 2 == 0
        if is_even and len(known) == len(members):
            kind = FusedAttention if FusedAttention.is_possible(members[0]) else MixedAttention
            return kind(members, known)
        if len({type(member.position).forward for member in members}) == 1:
            return StackedModel(members)
        return LoopedModel(members)

    @classmethod
    def predictors(cls, members: Sequence[Self]) -> list[tuple[Sequence[int], Predictor]]:
        if cls.forward is not AttentionBigram.forward:  # a model of its own
            return super().predictors(members)
        return attention_predictors(members)

    def next_logits(self, ids_BT: Tensor) -> Tensor:
        """Return the logits after the last token (B, V), of one query."""
        if type(self).forward is not AttentionBigram.forward:
            return super().next_logits(ids_BT)
        x_BTD = self.position(F.embedding(ids_BT, self.embed_VD))
        mixed_B1D = F.scaled_dot_product_attention(x_BTD[:, -1:], x_BTD, x_BTD)
        logits_BV: Tensor = self.head(mixed_B1D[:, 0])
        return logits_BV

    def forward(self, ids_BT: Tensor) -> Tensor:
        V, T = self.vocab_size, ids_BT.shape[1]
        table_TD = self.position.added_table()
        # Both sides count products of length D; a lookup costs about as much again.
        if table_TD is not None and ids_BT.numel() * (T + V) >= 4 * V * V:
            return self._by_tables(ids_BT, table_TD[:T])
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
        """Return the same logits for x = E[id] + p, looked up in products of E, p and the head.

        A score is (E_a + p_t) . (E_b + p_s) multiplied out: the batch has more pairs of tokens than
        the vocabulary, so each pair of the vocabulary is computed once.
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
