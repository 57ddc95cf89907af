"""Causal attention over the embeddings, without projections.

Shapes: B batch, T time (queries), S time (keys), D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigram_models.base import LanguageModel, linear, normal_parameter, require_positive
from bigram_models.positions import POSITIONS, PositionType


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
        x_BTD: Tensor = self.position(F.embedding(ids_BT, self.embed_VD))
        (V, D), T = self.embed_VD.shape, ids_BT.shape[1]
        score_BTS = torch.baddbmm(self.future_TS[:T, :T], x_BTD, x_BTD.mT, alpha=D**-0.5)
        weight_BTS = score_BTS.softmax(-1)
        # Weights sum to one, so the head commutes with mixing: mix the smaller of D and V channels.
        logits: Tensor = (
            weight_BTS @ self.head(x_BTD) if V < D else self.head(weight_BTS @ x_BTD)
        )
        return logits
