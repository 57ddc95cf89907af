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
        self._scale = self._D**-0.5
        self._future_TS = members[0].future_TS
        self._encode = StackedEncodings(encodings)
        numbers_M = torch.arange(len(members), device=self._future_TS.device)
        self._first_row_M11 = self._V * numbers_M[:, None, None]  # among all embeddings
        self._minus_one = -self._one

    def _stack_buffers(self) -> None:
        """Leave the members' buffers alone: the formulas have what is needed of them."""

    def _logits(self, parameters: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        weight_MVD, bias_M1V = parameters["head.weight"], parameters["head.bias"][:, None]
        x_MBTD = self._embedded(parameters["embed_VD"], ids)
        M, B, T, _ = x_MBTD.shape
        score_BTS, x_BTD = causal_scores(x_MBTD.flatten(0, 1), self._future_TS[:T, :T])
        mixing_BTS = score_BTS.softmax(-1)

        def head(x_BTD: Tensor) -> Tensor:
            x_MND = x_BTD.reshape(M, B * T, -1)
            return torch.baddbmm(bias_M1V, x_MND, weight_MVD.mT).view(M * B, T, -1)

        # As in a model alone: mix the smaller of D and V channels.
        is_wide = self._D > self._V
        logits_BTV = mixing_BTS @ head(x_BTD) if is_wide else head(mixing_BTS @ x_BTD)
        return logits_BTV.view(M, B, T, -1)

    def gradient(self, windows: StepWindows) -> tuple[Tensor, Tensor]:
        """Return the mean losses (M,) and their gradient (M, P), written out.

        Autograd would take twice as many operations, which is what a GPU waits for. Automatic mixed
        precision needs autograd.
        """
        if torch.is_autocast_enabled(self.values_MP.device.type):
            return super().gradient(windows)
        gradient_MP = torch.empty_like(self.values_MP)
        gradient = self.views(gradient_MP)
        x_MBTD, tokens = self._read(windows)
        x_BTD = x_MBTD.flatten(0, 1)
        mixing_BTS = self._mixing(x_BTD)
        through = self._through_logits if self._D > self._V else self._through_mixed
        loss_M, d_mixing_BTS, d_x_BTD = through(x_BTD, mixing_BTS, windows, tokens, gradient)
        # The scores of a pair are the same both ways: one product for both.
        d_score_BTS = self._d_scores(mixing_BTS, d_mixing_BTS)
        d_x_BTD.baddbmm_(d_score_BTS, x_BTD, alpha=self._scale)
        self._to_embeddings(d_x_BTD.view(x_MBTD.shape), windows, tokens, gradient["embed_VD"])
        return loss_M, gradient_MP

    def _through_mixed(
        self,
        x_BTD: Tensor,
        mixing_BTS: Tensor,
        windows: StepWindows,
        tokens: Tensor,
        gradient: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix D channels, then compute logits.

        Returns:
            The mean losses (M,), and the gradients of the mixing weights and, by the mixed values
            alone, of x. Those of the head are written.
        """
        mixed_BTD = torch.bmm(mixing_BTS, x_BTD)
        loss_M, d_mixed_BTD = self._through_head(mixed_BTD, windows, tokens, gradient)
        d_x_BTD = torch.bmm(mixing_BTS.mT, d_mixed_BTD)
        return loss_M, torch.bmm(d_mixed_BTD, x_BTD.mT), d_x_BTD

    def _through_head(
        self,
        mixed_BTD: Tensor,
        windows: StepWindows,
        tokens: Tensor,
        gradient: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the mean losses (M,) and the gradient of mixed values; write that of the head."""
        weight_MVD = self.parameters["head.weight"]
        mixed_MND = mixed_BTD.view(len(weight_MVD), -1, self._D)
        logits_MNV = torch.bmm(mixed_MND, weight_MVD.mT)
        loss_M, d_logits_MNV = self._cross_entropy(logits_MNV, windows, tokens)
        torch.sum(d_logits_MNV, 1, out=gradient["head.bias"])
        self._add_products(d_logits_MNV, mixed_MND, gradient["head.weight"])
        return loss_M, torch.bmm(d_logits_MNV, weight_MVD).view(mixed_BTD.shape)

    def _through_logits(
        self,
        x_BTD: Tensor,
        mixing_BTS: Tensor,
        windows: StepWindows,
        tokens: Tensor,
        gradient: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits of each token, then mix V channels; returns what `_through_mixed` does.

        Weights add up to one, so the head commutes with mixing.
        """
        weight_MVD = self.parameters["head.weight"]
        x_MND = x_BTD.view(len(weight_MVD), -1, self._D)
        value_BTV = torch.bmm(x_MND, weight_MVD.mT).view(*x_BTD.shape[:2], self._V)
        logits_MNV = torch.bmm(mixing_BTS, value_BTV).view(*x_MND.shape[:2], self._V)
        loss_M, d_logits_MNV = self._cross_entropy(logits_MNV, windows, tokens)
        d_logits_BTV = d_logits_MNV.view(value_BTV.shape)
        d_value_MNV = torch.bmm(mixing_BTS.mT, d_logits_BTV).view(logits_MNV.shape)
        torch.sum(d_logits_MNV, 1, out=gradient["head.bias"])
        self._add_products(d_value_MNV, x_MND, gradient["head.weight"])
        d_x_BTD = torch.bmm(d_value_MNV, weight_MVD).view(x_BTD.shape)
        return loss_M, torch.bmm(d_logits_BTV, value_BTV.mT), d_x_BTD

    def _embedded(self, embed_MVD: Tensor, ids: Tensor) -> Tensor:
        """Return x (M, B, T, D) of the ids of each member, or of shared ids."""
        return self._encode(F.embedding(ids + self._first_row_M11, embed_MVD.flatten(0, 1)))

    # What follows is what a GPU does in fewer passes, see `bigram_models.fused_attention`.

    def _read(self, windows: StepWindows) -> tuple[Tensor, Tensor]:
        """Return x (M, B, T, D) of the windows, and what later methods need of their tokens."""
        ids_MBT1 = windows.ids()
        return self._embedded(self.parameters["embed_VD"], ids_MBT1[..., :-1]), ids_MBT1

    def _mixing(self, x_BTD: Tensor) -> Tensor:
        """Return the weights (B, T, S) of keys up to the query."""
        T = x_BTD.shape[1]
        future_TS = self._future_TS[:T, :T]
        return torch.baddbmm(future_TS, x_BTD, x_BTD.mT, alpha=self._scale).softmax(-1)

    def _add_products(self, left_MNV: Tensor, right_MND: Tensor, out_MVD: Tensor) -> None:
        """Write the sums over N of the products of rows."""
        torch.bmm(left_MNV.mT, right_MND, out=out_MVD)

    def _d_scores(self, mixing_BTS: Tensor, d_mixing_BTS: Tensor) -> Tensor:
        """Return dS + dS^T, where dS is the gradient of the scaled scores (B, T, S)."""
        d_score_BTS = torch._softmax_backward_data(d_mixing_BTS, mixing_BTS, -1, mixing_BTS.dtype)
        return d_score_BTS + d_score_BTS.mT

    def _cross_entropy(
        self, logits_MNV: Tensor, windows: StepWindows, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mean losses (M,) and the gradient of logits without bias (M, N, V)."""
        target_MBT1 = tokens[..., 1:].unsqueeze(-1)
        logits_MNV = logits_MNV + self.parameters["head.bias"][:, None]
        log_p_MBTV = logits_MNV.view(*target_MBT1.shape[:-1], -1).log_softmax(-1)
        loss_M = log_p_MBTV.gather(-1, target_MBT1).mean((1, 2, 3)).neg()
        minus_one = self._minus_one.expand(target_MBT1.shape)
        d_logits_MBTV = log_p_MBTV.exp_().scatter_add_(-1, target_MBT1, minus_one)
        return loss_M, d_logits_MBTV.div_(logits_MNV.shape[1]).view(logits_MNV.shape)

    def _to_embeddings(
        self, d_x_MBTD: Tensor, windows: StepWindows, tokens: Tensor, out_MVD: Tensor
    ) -> None:
        """Write the gradient of the embeddings: the sums over the occurrences of each token."""
        rows_MBT = tokens[..., :-1] + self._first_row_M11
        rows = torch.ops.aten.embedding_dense_backward(
            self._encode.gradient(d_x_MBTD), rows_MBT, out_MVD.shape[0] * self._V, -1, False
        )
        out_MVD.copy_(rows.view(out_MVD.shape))
