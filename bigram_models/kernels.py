"""Kernels for a GPU that fuse the element-wise parts of a training step, by Triton.

They compute what a few lines of PyTorch do, in one pass over memory and one launch; the first call
for a shape compiles. They wait for nothing and allocate nothing, so a CUDA graph can capture them.
All tensors are on one GPU, contiguous unless said otherwise, float32 or int64 unless said
otherwise; a trailing underscore means that a tensor is changed in place.

Windows are read where they are in the text: those of step S are ``starts_SMB[row_1]``, and window b
of member m has the inputs ``tokens_N[start : start + T]`` and the targets one token later.

Shapes: M members, B batch, T time, D width, V vocabulary, N tokens of the text or places B * T of a
batch, P values of a member, S steps.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

AVAILABLE = find_spec("triton") is not None  # it comes with PyTorch's builds for GPUs
ELEMENTS = 1024  # of a block: few for a thread, so that small tensors keep many of them busy

logger = logging.getLogger(__name__)


@cache
def usable(device: torch.device) -> bool:
    """Return whether the kernels run on a device: a GPU, with Triton and what it compiles with."""
    if not AVAILABLE or device.type != "cuda":
        return False
    try:
        values, gradient, average, square = torch.zeros(4, 1, 1, device=device)
        scalars_S3M, row_1 = torch.ones(1, 3, 1, device=device), values[0].long()
        adamw_(values, gradient, average, square, scalars_S3M, row_1)
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no C compiler, no headers, no cache: each has its own type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning("training goes on without fused kernels: %s", reason)
        return False
    return True


def supports(vocab_size: int, block_size: int, n_embd: int) -> bool:
    """Return whether the kernels can compute attention of these sizes: a block holds a row."""
    return vocab_size <= 8192 and block_size <= 128 and n_embd <= 4096 and n_embd % 2 == 0


def embed_windows(
    values_MP: Tensor,
    offset: int,
    tokens_N: Tensor,
    starts_SMB: Tensor,
    row_1: Tensor,
    turn_MTD22: Tensor,
    table_MTD: Tensor,
    x_MBTD: Tensor,
) -> None:
    """Write the embeddings of windows with their positions, turn * E[token] + table, into x.

    Args:
        values_MP: parameters, in which the embeddings (V, D) of each member begin at an offset.
        offset: values before the embeddings.
        tokens_N: the text, int32.
        starts_SMB: of the windows.
        row_1: which row of the starts.
        turn_MTD22: unit complex numbers (M, T, D / 2, 2) for pairs of channels (2i, 2i + 1).
        table_MTD: added to the turned embeddings.
        x_MBTD: where the result is written.
    """
    M, B, T, D = x_MBTD.shape
    width = _power_of_2(D)
    rows = _rows(width)
    _code().embed_windows[-(-B * T // rows), M](
        values_MP, tokens_N, starts_SMB, row_1, turn_MTD22, table_MTD, x_MBTD,
        offset, values_MP.shape[1], M, B, T, D, ROWS=rows, WIDTH=width,
    )  # fmt: skip


def embedding_gradient(
    d_x_MBTD: Tensor,
    turn_MTD22: Tensor,
    tokens_N: Tensor,
    starts_SMB: Tensor,
    row_1: Tensor,
    gradient_MVD: Tensor,
) -> None:
    """Turn gradients back, and add up those of the occurrences of each token.

    The result is that of float32 sums, in an order that depends on the shapes alone.

    Args:
        d_x_MBTD: the gradient of the result of `embed_windows`.
        turn_MTD22: unit complex numbers, like the next three those of `embed_windows`.
        tokens_N: the text, int32.
        starts_SMB: of the windows.
        row_1: which row of the starts.
        gradient_MVD: where the result is written; its rows V * D need not follow each other.
    """
    M, B, T, D = d_x_MBTD.shape
    V, rows, width = gradient_MVD.shape[1], 32, min(64, max(16, _power_of_2(D)))
    vocabulary = min(128, max(16, _power_of_2(V)))
    blocks = -(-V // vocabulary) * -(-D // width)
    # Some programs for each processor of a GPU, so that all have work.
    rounds = min(16, _power_of_2(1 + M * B * T * blocks // (rows * 512)))
    parts = -(-B * T // (rounds * rows))
    partial = torch.empty(parts, M, V, D, device=d_x_MBTD.device)
    _code().embedding_gradient[blocks, M, parts](
        d_x_MBTD, turn_MTD22, tokens_N, starts_SMB, row_1, partial, M, B, T, V, D,
        ROUNDS=rounds, ROWS=rows, WIDTH=width, VOCABULARY=vocabulary, num_warps=8,
    )  # fmt: skip
    torch.sum(partial, 0, out=gradient_MVD)


def causal_softmax_(score_MBTT: Tensor, scale: float) -> None:
    """Replace scores by the softmax of scale * score over keys up to the query, 0 for later ones.

    The scores of later keys are not read.
    """
    T = score_MBTT.shape[-1]
    keys = _power_of_2(T)
    rows, count = _rows(keys), score_MBTT.numel() // T
    _code().causal_softmax[(-(-count // rows),)](score_MBTT, scale, count, T, ROWS=rows, KEYS=keys)


def softmax_backward_(weight_MBTT: Tensor, d_weight_MBTT: Tensor, scale: float) -> None:
    """Replace the gradient of weights by dS + dS^T, where dS is the gradient of unscaled scores.

    dS = weight * (d_weight - sum over keys of weight * d_weight) * scale.

    Args:
        weight_MBTT: results of `causal_softmax_`.
        d_weight_MBTT: their gradients; those of later keys are not read.
        scale: of the scores.
    """
    T = weight_MBTT.shape[-1]
    keys = _power_of_2(T)
    matrices, count = _rows(keys * keys), weight_MBTT.numel() // T**2
    _code().softmax_backward[(-(-count // matrices),)](
        weight_MBTT, d_weight_MBTT, scale, count, T,
        MATRICES=matrices, KEYS=keys, num_warps=16 if keys > 64 else 8,
    )  # fmt: skip


def supports_mix(block_size: int, n_embd: int) -> bool:
    """Return whether `mix` and `mix_backward` can, and should, do attention of these sizes.

    Their work grows with T * T * D but for their launches and their memory, and without tensor
    cores; products of short sequences are slow in libraries.
    """
    return block_size <= 16 and _power_of_2(block_size) * _power_of_2(n_embd) <= 8192


def mix(x_MBTD: Tensor, scale: float, mixed_MBTD: Tensor, log_sum_MBT: Tensor) -> None:
    """Mix the rows of each sequence up to each place by softmax(scale * x x^T), in one kernel.

    Args:
        x_MBTD: queries, keys and values.
        scale: of the scores.
        mixed_MBTD: where the results are written.
        log_sum_MBT: where the logarithms of the softmax's denominators are written.
    """
    B, T, D = x_MBTD.shape[1:]
    sequences = len(x_MBTD) * B
    grid, blocks = _blocks_of_sequences(sequences, T, D)
    _code().mix[grid](x_MBTD, mixed_MBTD, log_sum_MBT, scale, sequences, T, D, **blocks)


def mix_backward(
    x_MBTD: Tensor,
    scale: float,
    mixed_MBTD: Tensor,
    log_sum_MBT: Tensor,
    d_mixed_MBTD: Tensor,
    d_x_MBTD: Tensor,
) -> None:
    """Write the gradient of the rows that `mix` mixed.

    Args:
        x_MBTD: of `mix`, like the next three.
        scale: of the scores.
        mixed_MBTD: results of `mix`.
        log_sum_MBT: results of `mix`.
        d_mixed_MBTD: the gradient of the mixed rows.
        d_x_MBTD: where the result is written.
    """
    B, T, D = x_MBTD.shape[1:]
    sequences = len(x_MBTD) * B
    grid, blocks = _blocks_of_sequences(sequences, T, D)
    _code().mix_backward[grid](
        x_MBTD, mixed_MBTD, d_mixed_MBTD, log_sum_MBT, d_x_MBTD, scale, sequences, T, D, **blocks
    )  # fmt: skip


def cross_entropy_(
    logits_MNV: Tensor,
    bias_MV: Tensor,
    tokens_N: Tensor,
    starts_SMB: Tensor,
    row_1: Tensor,
    block_size: int,
    scale: float,
    loss_MN: Tensor,
) -> None:
    """Replace logits without bias by their gradient: (softmax - one at the target) * scale.

    Args:
        logits_MNV: for the places of the windows, (M, B * T, V).
        bias_MV: added to the logits; its rows need not follow each other.
        tokens_N: the text, int32.
        starts_SMB: of the windows.
        row_1: which row of the starts.
        block_size: T.
        scale: 1 / N for the gradient of a mean.
        loss_MN: where the losses of the places are written, in nats.
    """
    M, _, V = logits_MNV.shape
    B = starts_SMB.shape[-1]
    vocabulary = _power_of_2(V)
    rows = _rows(vocabulary)
    _code().cross_entropy[-(-B * block_size // rows), M](
        logits_MNV, bias_MV, tokens_N, starts_SMB, row_1, loss_MN,
        scale, bias_MV.stride(0), M, B, block_size, V,
        ROWS=rows, VOCABULARY=vocabulary,
    )  # fmt: skip


def adamw_(
    values_MP: Tensor,
    gradient_MP: Tensor,
    average_MP: Tensor,
    square_MP: Tensor,
    scalars_S3M: Tensor,
    row_1: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """Take a step of AdamW, which changes the values and both moments in place.

    The values become values * decay - average / (sqrt(square) * a + b).

    Args:
        values_MP: parameters.
        gradient_MP: of the parameters.
        average_MP: the running mean of gradients.
        square_MP: the running mean of their squares.
        scalars_S3M: a, b and decay of each member.
        row_1: which row of the scalars.
        betas: what the running means keep of themselves in a step.
    """
    M, P = values_MP.shape
    block = 1024
    _code().adamw[-(-P // block), M](
        values_MP, gradient_MP, average_MP, square_MP, scalars_S3M, row_1, *betas, P, M,
        VALUES=block,
    )  # fmt: skip


@cache
def _code() -> ModuleType:
    """Return the module that needs Triton, imported when a kernel is first used."""
    return import_module("bigram_models.triton_kernels")


def _rows(width: int) -> int:
    """Return how many rows of this width a block has."""
    return max(1, ELEMENTS // width)


def _blocks_of_sequences(sequences: int, T: int, D: int) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid and the block sizes of kernels whose blocks hold whole sequences."""
    time, width = _power_of_2(T), _power_of_2(D)
    together = max(1, ELEMENTS // (time * width))
    warps = min(16, max(4, time * width // 256))
    blocks = {"ROWS": together * time, "TIME": time, "WIDTH": width, "num_warps": warps}
    return (-(-sequences // together),), blocks


def _power_of_2(size: int) -> int:
    """Return the smallest power of two that is at least the size, and at least 2."""
    return max(2, 1 << (size - 1).bit_length())
