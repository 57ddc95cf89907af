"""The loss of a model on a split, in nats per character.

Shapes: M members of a stack, B batch, T time, V vocabulary, N tokens of a split, P distinct pairs,
K blocks of a split.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models import LanguageModel, TableModel, count_pairs
from bigram_models.count import DENSE_CELLS
from bigram_models.table import has_table, table_loss
from trainables.data.batches import WindowSampler, consecutive_windows

EVALUATION_TOKENS = 2_048  # per forward pass on a CPU: they fit in its caches
EVALUATION_TOKENS_GPU = 262_144
MOST_BLOCKS = 400  # of a split whose losses are kept by block
BLOCK_TOKENS = 256  # that a block has at least


@contextlib.contextmanager
def evaluating(models: Sequence[LanguageModel]) -> Iterator[None]:
    """Context manager: the models are not in training, where they might drop activations."""
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross entropy of the next tokens (B, T) int64, a scalar in nats."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction=reduction)


def batch_loss(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean loss of a batch, a scalar in nats, for the gradient of a step."""
    if has_table(model) and model.vocab_size <= inputs_BT.numel():  # fewer rows than tokens
        return table_loss(model, inputs_BT, targets_BT)
    return next_token_loss(model(inputs_BT), targets_BT)


def evaluation_tokens(device: torch.device) -> int:
    """Return the number of tokens per forward pass of an exact evaluation."""
    return EVALUATION_TOKENS_GPU if device.type == "cuda" else EVALUATION_TOKENS


@torch.inference_mode()
def exact_loss(model: LanguageModel, tokens_N: Tensor, block_size: int) -> float:
    """Return the mean loss over every token of a split but the first, each predicted once."""
    models = [model]
    if are_tables(models):
        return table_losses(models, tokens_N)[0]
    batch_tokens = evaluation_tokens(tokens_N.device)
    total = torch.zeros((), dtype=torch.float64, device=tokens_N.device)
    for inputs_BT, targets_BT in consecutive_windows(tokens_N, block_size, batch_tokens):
        total += next_token_loss(model(inputs_BT), targets_BT, reduction="sum")
    return float(total) / (len(tokens_N) - 1)


def are_tables(models: Sequence[LanguageModel]) -> TypeGuard[Sequence[TableModel]]:
    """Return whether `table_losses` may be used: all have tables, and these fit into memory."""
    cells = len(models) * models[0].vocab_size ** 2
    return cells <= DENSE_CELLS and all(map(has_table, models))


@torch.inference_mode()
def table_losses(models: Sequence[TableModel], tokens_N: Tensor) -> list[float]:
    """Return the `exact_loss` of each model, from the counts of neighbouring tokens.

    Args:
        models: of one vocabulary.
        tokens_N: the split, which is counted once.
    """
    pair_P, count_P = count_pairs(tokens_N, models[0].vocab_size)
    logits_MVV = torch.stack([model.table() for model in models]).double()
    log_p_MP = logits_MVV.log_softmax(-1).flatten(1)[:, pair_P]
    losses: list[float] = (log_p_MP @ count_P.double() / (1 - len(tokens_N))).tolist()
    return losses


@torch.inference_mode()
def sampled_loss(
    model: LanguageModel, sampler: WindowSampler, batches: int, generator: torch.Generator
) -> float:
    """Return the mean loss over random batches, as in the published study."""
    total = torch.zeros((), dtype=torch.float64, device=generator.device)
    for _ in range(batches):
        inputs_BT, targets_BT = sampler.draw(generator)
        total += next_token_loss(model(inputs_BT), targets_BT)
    return float(total) / batches


def block_count(tokens: int) -> int:
    """Return the number of contiguous blocks of a split, of about equal length."""
    return max(1, min(MOST_BLOCKS, (tokens - 1) // BLOCK_TOKENS))


@torch.inference_mode()
def block_losses(
    model: LanguageModel, tokens_N: Tensor, block_size: int
) -> tuple[list[int], list[float]]:
    """Cut a split into consecutive blocks; return the mean loss of each, as `exact_loss` has it.

    The blocks depend on the length of the split alone, so those of two models have the same text.

    Returns:
        The number of predictions of each block (K), and their mean loss in nats.
    """
    predicted, blocks = len(tokens_N) - 1, block_count(len(tokens_N))
    total_K = torch.zeros(blocks, dtype=torch.float64, device=tokens_N.device)
    start = 0
    with evaluating([model]):
        for loss_n in _losses_in_order(model, tokens_N, block_size):
            position_n = torch.arange(start, start + len(loss_n), device=tokens_N.device)
            total_K.index_add_(0, position_n * blocks // predicted, loss_n.double())
            start += len(loss_n)
    # Block k begins at the first position with position * K // N = k.
    starts = [-(-k * predicted // blocks) for k in range(blocks + 1)]
    counts = [end - start for start, end in itertools.pairwise(starts)]
    return counts, (total_K / torch.tensor(counts).to(total_K)).tolist()


def _losses_in_order(model: LanguageModel, tokens_N: Tensor, block_size: int) -> Iterator[Tensor]:
    """Yield the loss of every token of a split but the first, in order, in pieces."""
    batch_tokens, models = evaluation_tokens(tokens_N.device), [model]
    if are_tables(models):
        loss_VV = -models[0].table().log_softmax(-1)
        for start in range(0, len(tokens_N) - 1, batch_tokens):
            piece_n = tokens_N[start : start + batch_tokens + 1].long()
            yield loss_VV[piece_n[:-1], piece_n[1:]]
        return
    for inputs_BT, targets_BT in consecutive_windows(tokens_N, block_size, batch_tokens):
        yield next_token_loss(model(inputs_BT), targets_BT, reduction="none")
