"""What every positional encoding does. Shapes: B batch, T time, D width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class RotateAndAdd(NamedTuple):
    """The formula rotate(x) + table, where pairs of channels of x are complex numbers.

    rotate(x) multiplies the pair (2i, 2i+1) at each position by turn, so D is even.
    """

    turn: Tensor  # (T, D / 2) complex64
    table: Tensor  # (T, D)


class PositionalEncoding(nn.Module, ABC):
    """Changes embeddings x (B, T, D) by their positions, before attention compares them.

    A subclass draws every random initial value from ``generator``, never from the global state,
    and keeps its values in buffers: nothing in an encoding is trained.
    """

    @abstractmethod
    def __init__(self, block_size: int, n_embd: int, generator: torch.Generator) -> None:
        """Make the encoding of block_size positions for embeddings of width n_embd."""
        super().__init__()

    @classmethod
    def check_width(cls, n_embd: int) -> None:
        """Raise `ValueError` if embeddings cannot have this width; by default any is allowed."""

    @abstractmethod
    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return x with its positions, (B, T, D), for T of at most block_size."""

    def added_table(self) -> Tensor | None:
        """Return the table (block_size, D) if `forward` only adds one, otherwise None.

        Attention can then look products up instead of computing them.
        """
        return None

    def turns(self, positions: int) -> Tensor | None:
        """Return the turns of pairs of channels, if `forward` does nothing but rotate by them.

        The angle of a pair is in proportion to the position, so that only the distance of two
        positions matters to a score. Generation is faster with it.

        Returns:
            Complex numbers (positions, D / 2) of absolute value 1, or None.
        """
        return None

    def rotate_and_add(self) -> RotateAndAdd | None:
        """Return the formula that equals `forward`, or None if there is none.

        With it, models whose encodings differ run as one; without it they run one after another.
        """
        return None
