"""``pe_type: randn``."""

from __future__ import annotations

import torch
from torch import Tensor

from bigram_models.positions.added import AddedTable


class RandomTable(AddedTable):
    """Adds a table of 0.02 * N(0, 1)."""

    @staticmethod
    def make_table(block_size: int, n_embd: int, generator: torch.Generator) -> Tensor:
        return 0.02 * torch.randn(block_size, n_embd, generator=generator)
