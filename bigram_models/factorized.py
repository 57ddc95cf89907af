"""The bigram table as a product of two thin matrices.

Shapes: B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.base import linear, normal_parameter, require_positive
from bigram_models.table import TableModel


class FactorizedBigram(TableModel):
    """logits = Linear(E[id]), a table of rank at most n_embd.

    n_embd = 384 is the published "matrix factorization", n_embd = 32 is BabyGPT v1.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        n_embd: int = 384  # width D of the embedding

        def __post_init__(self) -> None:
            require_positive(n_embd=self.n_embd)

    def __init__(
        self, config: Config, vocab_size: int, block_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(vocab_size, context_size=1)
        self.embed_VD = normal_parameter(vocab_size, config.n_embd, generator)
        self.head = linear(config.n_embd, vocab_size, generator)

    def forward(self, ids_BT: Tensor) -> Tensor:
        logits: Tensor = self.head(F.embedding(ids_BT, self.embed_VD))
        return logits

    @staticmethod
    def table_of(parameters: Mapping[str, Tensor]) -> Tensor:
        embed, weight = parameters["embed_VD"], parameters["head.weight"]
        return embed @ weight.mT + parameters["head.bias"].unsqueeze(-2)
