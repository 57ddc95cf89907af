"""Attention scores x x^T / sqrt(D), with a gradient of one matrix product.

Shapes: M members of a stack, B batch, T time (queries), S time (keys), D width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


def causal_scores(x_BTD: Tensor, future_TS: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores x x^T / sqrt(D) (B, T, S), -inf for the future, and x for later use.

    A step waits for memory more than for products, so the gradient is one product: the scores of a
    pair are the same both ways, and the gradient that the returned x receives is added by it.

    Args:
        x_BTD: queries and keys.
        future_TS: -inf where the key is later than the query, else 0.
    """
    scores: tuple[Tensor, Tensor] = _CausalScores.apply(x_BTD, future_TS)  # type: ignore[no-untyped-call]
    return scores


class _Context(Protocol):
    """What autograd keeps between the two passes."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _CausalScores(torch.autograd.Function):
    @staticmethod
    def forward(x_BTD: Tensor, future_TS: Tensor) -> tuple[Tensor, Tensor]:
        scale = x_BTD.shape[-1] ** -0.5
        return torch.baddbmm(future_TS, x_BTD, x_BTD.mT, alpha=scale), x_BTD.view_as(x_BTD)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, Tensor], output: object) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: _Context, d_score_BTS: Tensor, d_x_BTD: Tensor) -> tuple[Tensor, None]:
        (x_BTD,) = ctx.saved_tensors
        d_both_BTS = (d_score_BTS + d_score_BTS.mT).to(x_BTD.dtype)
        scale = x_BTD.shape[-1] ** -0.5
        return torch.baddbmm(d_x_BTD, d_both_BTS, x_BTD, alpha=scale), None

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int, int | None], x_MBTD: Tensor, future: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        """Compute all members of a stack as one batch; they share the mask."""
        x_MBTD = x_MBTD.movedim(in_dims[0], 0)
        future_TS = future if in_dims[1] is None else future.select(in_dims[1], 0)
        outputs = causal_scores(x_MBTD.flatten(0, 1), future_TS)
        return tuple(output.unflatten(0, x_MBTD.shape[:2]) for output in outputs), (0, 0)  # type: ignore[no-untyped-call]
