"""The loss of a model on a split, in nats per character. Shapes: B batch, T time, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models import LanguageModel
from bigram_models.table import has_table, table_loss
from trainables.data.batches import WindowSampler, consecutive_windows

EVALUATION_TOKENS = 2_048  # per forward pass on a CPU: they fit in its caches
EVALUATION_TOKENS_GPU = 262_144


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
    batch_tokens = evaluation_tokens(tokens_N.device)
    total = torch.zeros((), dtype=torch.float64, device=tokens_N.device)
    for inputs_BT, targets_BT in consecutive_windows(tokens_N, block_size, batch_tokens):
        total += next_token_loss(model(inputs_BT), targets_BT, reduction="sum")
    return float(total) / (len(tokens_N) - 1)


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
