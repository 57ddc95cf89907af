"""Attention models with different positional encodings as one model.

Shapes: M members, B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.causal_scores import causal_scores
from bigram_models.positions import RotateAndAdd, StackedEncodings
from bigram_models.stacked import StackedModel

if TYPE_CHECKING:
    from bigram_models.attention import AttentionBigram


class MixedAttention(StackedModel):
    """Computes what `AttentionBigram` computes without tables, for all members at once."""

    def __init__(
        self, members: Sequence[AttentionBigram], encodings: Sequence[RotateAndAdd]
    ) -> None:
        """Stack models of one even width, with the formula of each one's encoding."""
        super().__init__(members)
        V = members[0].vocab_size
        self._future_TS = members[0].future_TS
        self._encode = StackedEncodings(encodings)
        numbers_M = torch.arange(len(members), device=self._future_TS.device)
        self._first_row_M11 = V * numbers_M[:, None, None]  # of each member among all embeddings

    def _stack_buffers(self) -> None:
        """Leave the members' buffers alone: the formulas have what is needed of them."""

    def __call__(self, ids: Tensor) -> Tensor:
        """Return next-token logits (M, B, T, V) of ids (M, B, T), or of shared ids (B, T)."""
        E_MVD, weight_MVD = self.parameters["embed_VD"], self.parameters["head.weight"]
        V, D, T = *E_MVD.shape[1:], ids.shape[-1]
        x_MBTD = self._encode(F.embedding(ids + self._first_row_M11, E_MVD.flatten(0, 1)))
        score, x = causal_scores(x_MBTD.flatten(0, 1), self._future_TS[:T, :T])
        x_MBTD = x.view(x_MBTD.shape)
        mixing_MBTS = score.softmax(-1).view(*x_MBTD.shape[:3], T)
        bias_M11V = self.parameters["head.bias"][:, None, None]
        # As in a model alone: mix the smaller of D and V channels.
        if D > V:
            return mixing_MBTS @ (x_MBTD @ weight_MVD.mT[:, None] + bias_M11V)
        return (mixing_MBTS @ x_MBTD) @ weight_MVD.mT[:, None] + bias_M11V
