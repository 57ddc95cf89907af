"""How `attention` tells positions apart. Shapes: B batch, T time, D width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

PositionType = Literal["randn", "sinpe", "rope"]


class AddedTable(nn.Module):
    """x + table: the same fixed (not trained) row for a position in every sequence."""

    def __init__(self, table_TD: Tensor) -> None:
        super().__init__()
        self.register_buffer("table_TD", table_TD)
        self.table_TD: Tensor

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.table_TD[: x_BTD.shape[1]]


class Rotation(nn.Module):
    """Rotate the channel pairs (2i, 2i+1) of x by position * 10000^(-2i/D) (Su et al. 2021)."""

    def __init__(self, angle_TD2: Tensor) -> None:
        super().__init__()
        turn_TD2 = torch.polar(torch.ones_like(angle_TD2), angle_TD2)
        self.register_buffer("turn_TD2", turn_TD2.to(torch.complex64))
        self.turn_TD2: Tensor

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        pairs = torch.view_as_complex(x_BTD.view(B, T, D // 2, 2))
        return torch.view_as_real(pairs * self.turn_TD2[:T]).view(B, T, D)


def angles(block_size: int, n_embd: int) -> Tensor:
    """position * 10000^(-2i/D) in radians for the channel pairs i, (T, ceil(D / 2))."""
    frequency = 10_000.0 ** (-torch.arange(0, n_embd, 2, dtype=torch.float64) / n_embd)
    return torch.arange(block_size, dtype=torch.float64)[:, None] * frequency


def randn(block_size: int, n_embd: int, generator: torch.Generator) -> nn.Module:
    """A table of 0.02 * N(0, 1)."""
    return AddedTable(0.02 * torch.randn(block_size, n_embd, generator=generator))


def sinpe(block_size: int, n_embd: int, generator: torch.Generator) -> nn.Module:
    """The sinusoids of Vaswani et al. 2017: even channels sine, odd channels cosine."""
    angle = angles(block_size, n_embd)
    interleaved = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return AddedTable(interleaved[:, :n_embd].float())


def rope(block_size: int, n_embd: int, generator: torch.Generator) -> nn.Module:
    """Rotary positions."""
    return Rotation(angles(block_size, n_embd))


POSITIONS: Mapping[PositionType, Callable[[int, int, torch.Generator], nn.Module]] = {
    "randn": randn,
    "sinpe": sinpe,
    "rope": rope,
}
