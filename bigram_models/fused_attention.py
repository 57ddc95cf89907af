"""Attention models as one on a GPU, with fused kernels between the matrix products.

Shapes: M members, B batch, T time (queries), S time (keys), D width, V vocabulary, N = B * T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bigram_models.kernels import (
    causal_softmax_,
    cross_entropy_,
    embed_windows,
    embedding_gradient,
    mix,
    mix_backward,
    softmax_backward_,
    supports,
    supports_mix,
    usable,
)
from bigram_models.mixed_attention import MixedAttention
from bigram_models.positions import RotateAndAdd
from bigram_models.stacked import StepWindows

PART = 256  # places, at least, of a part of a sum over all places of a batch
PARTS = 512  # of all members, at most

if TYPE_CHECKING:
    from bigram_models.attention import AttentionBigram


class FusedAttention(MixedAttention):
    """Computes the steps of `MixedAttention` in fewer passes over memory, in float32."""

    def __init__(
        self, members: Sequence[AttentionBigram], encodings: Sequence[RotateAndAdd]
    ) -> None:
        """Stack models for which `is_possible` holds."""
        super().__init__(members, encodings)
        self._turn_MTD22 = torch.view_as_real(self._encode.turn_M1TD2[:, 0]).contiguous()
        self._table_MTD = self._encode.table_M1TD[:, 0].contiguous()

    @staticmethod
    def is_possible(member: AttentionBigram) -> bool:
        """Return whether the kernels can train models of this shape where the member is."""
        embed_VD = member.embed_VD
        is_supported = supports(len(embed_VD), member.context_size, embed_VD.shape[1])
        return is_supported and embed_VD.dtype == torch.float32 and usable(embed_VD.device)

    def gradient(self, windows: StepWindows) -> tuple[Tensor, Tensor]:
        """Return the mean losses (M,) and their gradient (M, P).

        Short windows are mixed by a kernel without weights in memory.
        """
        is_short = supports_mix(windows.block_size, self._D)
        if not is_short or torch.is_autocast_enabled(self.values_MP.device.type):
            return super().gradient(windows)
        gradient_MP = torch.empty_like(self.values_MP)
        gradient = self.views(gradient_MP)
        x_MBTD, tokens = self._read(windows)
        mixed_MBTD, d_x_MBTD = torch.empty_like(x_MBTD), torch.empty_like(x_MBTD)
        log_sum_MBT = x_MBTD.new_empty(x_MBTD.shape[:-1])
        mix(x_MBTD, self._scale, mixed_MBTD, log_sum_MBT)
        loss_M, d_mixed_MBTD = self._through_head(mixed_MBTD, windows, tokens, gradient)
        mix_backward(x_MBTD, self._scale, mixed_MBTD, log_sum_MBT, d_mixed_MBTD, d_x_MBTD)
        self._to_embeddings(d_x_MBTD, windows, tokens, gradient["embed_VD"])
        return loss_M, gradient_MP

    def _read(self, windows: StepWindows) -> tuple[Tensor, Tensor]:
        """Return x (M, B, T, D), and the text: the kernels find the windows in it themselves."""
        _, M, B = windows.starts.shape
        x_MBTD = self.values_MP.new_empty(M, B, windows.block_size, self._D)
        embed_windows(
            self.values_MP, 0, windows.tokens, windows.starts, windows.row,
            self._turn_MTD22, self._table_MTD, x_MBTD,
        )  # fmt: skip
        return x_MBTD, windows.tokens

    def _mixing(self, x_BTD: Tensor) -> Tensor:
        score_BTS = torch.bmm(x_BTD, x_BTD.mT)
        causal_softmax_(score_BTS, self._scale)
        return score_BTS

    def _d_scores(self, mixing_BTS: Tensor, d_mixing_BTS: Tensor) -> Tensor:
        softmax_backward_(mixing_BTS, d_mixing_BTS, 1.0)
        return d_mixing_BTS

    def _cross_entropy(
        self, logits_MNV: Tensor, windows: StepWindows, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        M, N, _ = logits_MNV.shape
        loss_MN = logits_MNV.new_empty(M, N)
        cross_entropy_(
            logits_MNV, self.parameters["head.bias"], windows.tokens, windows.starts, windows.row,
            windows.block_size, 1 / N, loss_MN,
        )  # fmt: skip
        return loss_MN.mean(1), logits_MNV

    def _to_embeddings(
        self, d_x_MBTD: Tensor, windows: StepWindows, tokens: Tensor, out_MVD: Tensor
    ) -> None:
        embedding_gradient(
            d_x_MBTD, self._turn_MTD22, windows.tokens, windows.starts, windows.row, out_MVD
        )

    def _add_products(self, left_MNV: Tensor, right_MND: Tensor, out_MVD: Tensor) -> None:
        """Write the sums over N of the products of rows, in parts that keep a GPU busy.

        The result is small and N is large, so that few members leave most of a GPU idle.
        """
        M, N, _ = left_MNV.shape
        most = max(1, min(N // PART, PARTS // M))
        parts = math.gcd(N, 1 << (most.bit_length() - 1))
        sums = torch.bmm(
            left_MNV.reshape(M * parts, N // parts, -1).mT,
            right_MND.reshape(M * parts, N // parts, -1),
        )
        torch.sum(sums.view(M, parts, *out_MVD.shape[1:]), 1, out=out_MVD)
