"""``pe_type: rope``. Shapes: B batch, T time, D width, D2 pairs of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from bigram_models.positions.angles import angles
from bigram_models.positions.base import PositionalEncoding, RotateAndAdd


class Rotation(PositionalEncoding):
    """Rotates the channel pairs (2i, 2i+1) of x by position * 10000^(-2i/D) (Su et al. 2021)."""

    @classmethod
    def check_width(cls, n_embd: int) -> None:
        if n_embd % 2:
            raise ValueError(
                f"n_embd={n_embd} is odd, but pe_type=rope rotates pairs of channels;"
                " choose an even n_embd"
            )

    def __init__(self, block_size: int, n_embd: int, generator: torch.Generator) -> None:
        super().__init__(block_size, n_embd, generator)
        self.register_buffer("turn_TD2", turns(block_size, n_embd))
        self.turn_TD2: Tensor

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        pairs = torch.view_as_complex(x_BTD.view(B, T, D // 2, 2))
        return torch.view_as_real(pairs * self.turn_TD2[:T]).view(B, T, D)

    def turns(self, positions: int) -> Tensor:
        """Return the turns of more positions than a block has."""
        return turns(positions, 2 * self.turn_TD2.shape[1]).to(self.turn_TD2.device)

    def rotate_and_add(self) -> RotateAndAdd:
        """Return the formula with a table of zeros."""
        T, D2 = self.turn_TD2.shape
        return RotateAndAdd(self.turn_TD2, self.turn_TD2.real.new_zeros(T, 2 * D2))


def turns(positions: int, n_embd: int) -> Tensor:
    """Return the turn of each pair of channels, (positions, n_embd / 2) complex64."""
    angle_TD2 = angles(positions, n_embd)
    return torch.polar(torch.ones_like(angle_TD2), angle_TD2).to(torch.complex64)
