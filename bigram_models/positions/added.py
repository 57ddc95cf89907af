"""Encodings that add a table to the embeddings. Shapes: B batch, T time, D width."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from bigram_models.positions.base import PositionalEncoding, RotateAndAdd


class AddedTable(PositionalEncoding):
    """x + table: the same fixed (not trained) row for a position in every sequence."""

    def __init__(self, block_size: int, n_embd: int, generator: torch.Generator) -> None:
        super().__init__(block_size, n_embd, generator)
        self.register_buffer("table_TD", self.make_table(block_size, n_embd, generator))
        self.table_TD: Tensor

    @staticmethod
    @abstractmethod
    def make_table(block_size: int, n_embd: int, generator: torch.Generator) -> Tensor:
        """Return the table, (block_size, n_embd) float32."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.table_TD[: x_BTD.shape[1]]

    def added_table(self) -> Tensor:
        return self.table_TD

    def rotate_and_add(self) -> RotateAndAdd:
        """Return the formula with a rotation by zero."""
        ones_TD2 = torch.ones_like(self.table_TD[:, 0::2])
        return RotateAndAdd(ones_TD2.to(torch.complex64), self.table_TD)
