"""Encodings of several models as one formula.

Shapes: M members, B batch, T time, D width.
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
        self._cos_M1TD, self._sin_M1TD, self._table_M1TD = (
            torch.stack(tensors_TD)[:, None] for tensors_TD in zip(*formulas, strict=True)
        )

    def __call__(self, x_MBTD: Tensor) -> Tensor:
        """Return x with the positions of each member, (M, B, T, D)."""
        T = x_MBTD.shape[2]
        rotated_MBTD = (
            x_MBTD * self._cos_M1TD[:, :, :T] + quarter_turn(x_MBTD) * self._sin_M1TD[:, :, :T]
        )
        added_MBTD: Tensor = rotated_MBTD + self._table_M1TD[:, :, :T]
        return added_MBTD


def quarter_turn(x: Tensor) -> Tensor:
    """Return x (..., D) with each pair of channels (a, b) as (-b, a)."""
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
