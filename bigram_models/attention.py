"""Causal attention over the embeddings, without projections.

Shapes: B batch, T time (queries), S time (keys), D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigram_models.base import LanguageModel, linear, normal_parameter, require_positive
from bigram_models.positions import POSITIONS, AddedTable, PositionType


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

    def forward(self, ids_BT: Tensor) -> Tensor:
        V, T = self.vocab_size, ids_BT.shape[1]
        # Both sides count products of length D; a lookup costs about as much again.
        if isinstance(self.position, AddedTable) and ids_BT.numel() * (T + V) >= 4 * V * V:
            return self._by_tables(ids_BT, self.position.table_TD[:T])
        x_BTD = self.position(F.embedding(ids_BT, self.embed_VD))
        weight_BTS = self._weights(x_BTD @ x_BTD.mT)
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
        value_BTV = F.embedding(ids_BT, E_VD @ self.head.weight.T) + self.head(p_TD)
        logits: Tensor = self._weights(score_BTS) @ value_BTV
        return logits

    def _weights(self, score_BTS: Tensor) -> Tensor:
        """Causal softmax of scores / sqrt(D)."""
        T, D = score_BTS.shape[1], self.embed_VD.shape[1]
        return torch.add(self.future_TS[:T, :T], score_BTS, alpha=D**-0.5).softmax(-1)
