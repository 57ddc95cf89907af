"""Angles of sinusoids and rotations. Shapes: T time, D2 pairs of channels."""

from __future__ import annotations

import torch
from torch import Tensor


def angles(block_size: int, n_embd: int) -> Tensor:
    """Return position * 10000^(-2i/D) in radians for each pair i, (T, ceil(D / 2)) float64."""
    frequency = 10_000.0 ** (-torch.arange(0, n_embd, 2, dtype=torch.float64) / n_embd)
    return torch.arange(block_size, dtype=torch.float64)[:, None] * frequency
