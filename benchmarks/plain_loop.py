"""A trial as one writes it from the protocol alone: what ours is measured against.

A batch is stacked from slices, rotary pairs are taken apart and stacked again, attention is
PyTorch's fused kernel, AdamW has its defaults, and a loss is the mean over 200 random batches.

Shapes: B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_SIZE = 64
LEARNING_RATE = 1e-2
EVALUATION_BATCHES = 200


class PlainAttention(nn.Module):
    """x = position(E[id]); logits = Linear(attention(x, x, x))."""

    def __init__(self, vocab_size: int, n_embd: int, block_size: int, pe_type: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.head = nn.Linear(n_embd, vocab_size)
        self.pe_type = pe_type
        position = torch.arange(block_size).float()[:, None]
        angle = position / 10000 ** (torch.arange(0, n_embd, 2).float() / n_embd)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        table = 0.02 * torch.randn(block_size, n_embd)
        if pe_type == "sinpe":
            table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
        self.register_buffer("table", table)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(ids)
        if self.pe_type == "rope":
            even, odd = x[..., 0::2], x[..., 1::2]
            x = torch.stack(
                [even * self.cos - odd * self.sin, even * self.sin + odd * self.cos], dim=-1
            ).flatten(-2)
        else:
            x = x + self.table
        mixed = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        logits = self.head(mixed)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


class PlainTrial:
    """Steps and evaluations of one configuration."""

    def __init__(
        self,
        train: Tensor,
        validation: Tensor,
        vocab_size: int,
        n_embd: int,
        block_size: int,
        pe_type: str,
    ) -> None:
        self.splits = (train, validation)
        self.block_size = block_size
        self.model = PlainAttention(vocab_size, n_embd, block_size, pe_type)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)

    def batch(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        T = self.block_size
        starts = torch.randint(len(tokens) - T, (BATCH_SIZE,))
        return (
            torch.stack([tokens[start : start + T] for start in starts]),
            torch.stack([tokens[start + 1 : start + T + 1] for start in starts]),
        )

    def step(self) -> None:
        loss = self.model(*self.batch(self.splits[0]))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def evaluate(self, batches: int = EVALUATION_BATCHES) -> list[float]:
        """Both losses in nats per character."""
        loss: Callable[[Tensor], Tensor] = lambda split: torch.stack(  # noqa: E731
            [self.model(*self.batch(split)) for _ in range(batches)]
        ).mean()
        return [float(loss(split)) for split in self.splits]
