"""The bigram table. Shapes: B batch, T time, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.base import normal_parameter
from bigram_models.table import TableModel


class BigramTable(TableModel):
    """logits = E[id]: one trainable row of logits (V,) for each token."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The table has no settings."""

    def __init__(
        self, config: Config, vocab_size: int, block_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(vocab_size, context_size=1)
        self.logits_VV = normal_parameter(vocab_size, vocab_size, generator)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return F.embedding(ids_BT, self.logits_VV)

    @staticmethod
    def table_of(parameters: Mapping[str, Tensor]) -> Tensor:
        return parameters["logits_VV"]
