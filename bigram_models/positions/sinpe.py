"""``pe_type: sinpe``."""

from __future__ import annotations

import torch
from torch import Tensor

from bigram_models.positions.added import AddedTable
from bigram_models.positions.angles import angles


class Sinusoids(AddedTable):
    """Adds sinusoids: even channels sine, odd channels cosine (Vaswani et al. 2017)."""

    @staticmethod
    def make_table(block_size: int, n_embd: int, generator: torch.Generator) -> Tensor:
        angle_TD2 = angles(block_size, n_embd)
        interleaved_TD = torch.stack([angle_TD2.sin(), angle_TD2.cos()], dim=-1).flatten(1)
        return interleaved_TD[:, :n_embd].float()
