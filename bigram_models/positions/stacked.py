"""Encodings of several models as one formula.

Shapes: M members, B batch, T time, D width, D2 pairs of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigram_models.positions.base import RotateAndAdd


class StackedEncodings:
    """Gives each member's x its positions, whatever the member's encoding."""

    def __init__(self, formulas: Sequence[RotateAndAdd]) -> None:
        """Stack one formula for each member, all of one shape (T, D) with an even D."""
        self.turn_M1TD2 = torch.stack([formula.turn for formula in formulas])[:, None]
        self.back_M1TD2 = self.turn_M1TD2.conj().resolve_conj()
        self.table_M1TD = torch.stack([formula.table for formula in formulas])[:, None]

    def __call__(self, x_MBTD: Tensor) -> Tensor:
        """Return x with the positions of each member, (M, B, T, D)."""
        T = x_MBTD.shape[2]
        return multiplied(x_MBTD, self.turn_M1TD2[:, :, :T]) + self.table_M1TD[:, :, :T]

    def gradient(self, d_x_MBTD: Tensor) -> Tensor:
        """Return the gradient with respect to the x that was given, (M, B, T, D)."""
        return multiplied(d_x_MBTD, self.back_M1TD2[:, :, : d_x_MBTD.shape[2]])


def multiplied(x: Tensor, turn: Tensor) -> Tensor:
    """Return x (..., D), whose pairs of channels are complex numbers, times turn (..., D2)."""
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2)
