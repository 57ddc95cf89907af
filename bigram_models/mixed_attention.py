"""Attention models as one, whatever their positional encodings.

Shapes: M members, B batch, T time (queries), S time (keys), D width, V vocabulary, P values of a
member, N = B * T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.causal_scores import causal_scores
from bigram_models.positions import RotateAndAdd, StackedEncodings
from bigram_models.stacked import StackedModel, StepWindows

if TYPE_CHECKING:
    from bigram_models.attention import AttentionBigram


class MixedAttention(StackedModel):
    """Computes what `AttentionBigram` computes without tables, for all members at once."""

    def __init__(
        self, members: Sequence[AttentionBigram], encodings: Sequence[RotateAndAdd]
    ) -> None:
        """Stack models of one even width, with the formula of each one's encoding."""
        super().__init__(members)
        self._V, self._D = members[0].embed_VD.shape
        self._future_TS = members[0].future_TS
        self._encode = StackedEncodings(encodings)
        numbers_M = torch.arange(len(members), device=self._future_TS.device)
        self._first_row_M11 = self._V * numbers_M[:, None, None]  # among all embeddings
        self._minus_one = -self._one

    def _stack_buffers(self) -> None:
        """Leave the members' buffers alone: the formulas have what is needed of them."""

    def _logits(self, parameters: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        weight_MVD, bias_M11V = parameters["head.weight"], parameters["head.bias"][:, None, None]
        T = ids.shape[-1]
        x_MBTD = self._embedded(parameters["embed_VD"], ids + self._first_row_M11)
        score, x = causal_scores(x_MBTD.flatten(0, 1), self._future_TS[:T, :T])
        x_MBTD = x.view(x_MBTD.shape)
        mixing_MBTS = score.softmax(-1).view(*x_MBTD.shape[:3], T)
        # As in a model alone: mix the smaller of D and V channels.
        if self._D > self._V:
            return mixing_MBTS @ (x_MBTD @ weight_MVD.mT[:, None] + bias_M11V)
        return (mixing_MBTS @ x_MBTD) @ weight_MVD.mT[:, None] + bias_M11V

    def _embedded(self, embed_MVD: Tensor, rows_MBT: Tensor) -> Tensor:
        """Return x (M, B, T, D) of rows among the embeddings of all members."""
        return self._encode(F.embedding(rows_MBT, embed_MVD.flatten(0, 1)))

    def gradient(self, windows: StepWindows) -> tuple[Tensor, Tensor]:
        """Return the mean losses (M,) and their gradient (M, P), written out.

        Autograd would take twice as many operations, which is what a GPU waits for. Automatic mixed
        precision needs autograd.
        """
        if torch.is_autocast_enabled(self.values_MP.device.type):
            return super().gradient(windows)
        ids_MBT1 = windows.ids()
        rows_MBT, targets_MBT = ids_MBT1[..., :-1] + self._first_row_M11, ids_MBT1[..., 1:]
        gradient_MP = torch.empty_like(self.values_MP)
        x_BTD = self._embedded(self.parameters["embed_VD"], rows_MBT).flatten(0, 1)
        T = x_BTD.shape[1]
        scale = self._D**-0.5
        score_BTS = torch.baddbmm(self._future_TS[:T, :T], x_BTD, x_BTD.mT, alpha=scale)
        mixing_BTS = score_BTS.softmax(-1)
        through = self._through_logits if self._D > self._V else self._through_mixed
        loss_M, d_mixing_BTS, d_x_BTD = through(
            x_BTD, mixing_BTS, targets_MBT, self.views(gradient_MP)
        )
        d_score_BTS = torch._softmax_backward_data(d_mixing_BTS, mixing_BTS, -1, x_BTD.dtype)
        # The scores of a pair are the same both ways: one product for both.
        d_x_BTD.baddbmm_(d_score_BTS + d_score_BTS.mT, x_BTD, alpha=scale)
        d_embedded_MBTD = self._encode.gradient(d_x_BTD.view(*rows_MBT.shape, self._D))
        self._to_embeddings(rows_MBT, d_embedded_MBTD, self.views(gradient_MP)["embed_VD"])
        return loss_M, gradient_MP

    def _through_mixed(
        self, x_BTD: Tensor, mixing_BTS: Tensor, targets_MBT: Tensor, gradient: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix D channels, then compute logits.

        Returns:
            The mean losses (M,), and the gradients of the mixing weights and, by the mixed values
            alone, of x. Those of the head are written.
        """
        M = len(targets_MBT)
        weight_MVD, bias_M1V = self.parameters["head.weight"], self.parameters["head.bias"][:, None]
        mixed_MND = (mixing_BTS @ x_BTD).view(M, -1, self._D)
        logits_MNV = torch.baddbmm(bias_M1V, mixed_MND, weight_MVD.mT)
        loss_M, d_logits_MNV = self._cross_entropy(logits_MNV, targets_MBT)
        torch.sum(d_logits_MNV, 1, out=gradient["head.bias"])
        torch.bmm(d_logits_MNV.mT, mixed_MND, out=gradient["head.weight"])
        d_mixed_BTD = torch.bmm(d_logits_MNV, weight_MVD).view(x_BTD.shape)
        return loss_M, d_mixed_BTD @ x_BTD.mT, mixing_BTS.mT @ d_mixed_BTD

    def _through_logits(
        self, x_BTD: Tensor, mixing_BTS: Tensor, targets_MBT: Tensor, gradient: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits of each token, then mix V channels; returns what `_through_mixed` does.

        Weights add up to one, so the head commutes with mixing.
        """
        M = len(targets_MBT)
        weight_MVD, bias_M1V = self.parameters["head.weight"], self.parameters["head.bias"][:, None]
        x_MND = x_BTD.view(M, -1, self._D)
        value_BTV = torch.baddbmm(bias_M1V, x_MND, weight_MVD.mT).view(*x_BTD.shape[:2], -1)
        logits_MNV = (mixing_BTS @ value_BTV).view(M, -1, self._V)
        loss_M, d_logits_MNV = self._cross_entropy(logits_MNV, targets_MBT)
        d_logits_BTV = d_logits_MNV.view(value_BTV.shape)
        d_value_MNV = torch.bmm(mixing_BTS.mT, d_logits_BTV).view(logits_MNV.shape)
        torch.sum(d_value_MNV, 1, out=gradient["head.bias"])
        torch.bmm(d_value_MNV.mT, x_MND, out=gradient["head.weight"])
        d_x_BTD = torch.bmm(d_value_MNV, weight_MVD).view(x_BTD.shape)
        return loss_M, d_logits_BTV @ value_BTV.mT, d_x_BTD

    def _cross_entropy(self, logits_MNV: Tensor, targets_MBT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean losses (M,) and the gradient of the logits (M, N, V)."""
        target_MBT1 = targets_MBT.unsqueeze(-1)
        log_p_MBTV = logits_MNV.view(*targets_MBT.shape, -1).log_softmax(-1)
        loss_M = log_p_MBTV.gather(-1, target_MBT1).mean((1, 2, 3)).neg()
        minus_one = self._minus_one.expand(target_MBT1.shape)
        d_logits_MBTV = log_p_MBTV.exp_().scatter_add_(-1, target_MBT1, minus_one)
        return loss_M, d_logits_MBTV.div_(logits_MNV.shape[1]).view(logits_MNV.shape)

    def _to_embeddings(self, rows_MBT: Tensor, d_MBTD: Tensor, out_MVD: Tensor) -> None:
        """Add up the gradients (M, B, T, D) of the occurrences of each token."""
        rows = torch.ops.aten.embedding_dense_backward(
            d_MBTD, rows_MBT, out_MVD.shape[0] * self._V, -1, False
        )
        out_MVD.copy_(rows.view(out_MVD.shape))
