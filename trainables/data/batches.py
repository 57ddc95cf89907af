"""Windows of the text, and random streams. Shapes: B batch, T time, N tokens of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def stream(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the random stream of a seed for one purpose, independent of those for others."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def initial_stream(seed: int) -> torch.Generator:
    """Return the random stream of a model's initial values, equal to `torch.manual_seed(seed)`.

    With it seed 1337 starts from the weights of the published study.
    """
    return torch.Generator().manual_seed(seed)


class WindowSampler:
    """Draws random windows with replacement from one split, on the split's device."""

    def __init__(self, tokens_N: Tensor, batch_size: int, block_size: int) -> None:
        self.windows_NT1 = tokens_N.unfold(0, block_size + 1, 1)  # a view: no copies
        self.batch_size = batch_size

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch: inputs and next tokens, each (B, T) int64."""
        return self.windows(self.draw_starts(generator))

    def draw_starts(self, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """Draw the starts of windows, (B,) int64, on the generator's device or into ``out``."""
        return torch.randint(
            len(self.windows_NT1),
            (self.batch_size,),
            generator=generator,
            device=generator.device,
            out=out,
        )

    def windows(self, start_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and next tokens of the windows at these starts, each (B, T) int64."""
        windows_NT1 = self.windows_NT1
        window_BT1 = windows_NT1.index_select(0, start_B.to(windows_NT1.device)).long()
        return window_BT1[:, :-1], window_BT1[:, 1:]


def consecutive_windows(
    tokens_N: Tensor, block_size: int, batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through a split in windows of T, with every token but the first as a target once.

    Yields:
        Inputs and next tokens, each (B, T) int64 with B * T <= max(batch_tokens, T). A shorter last
        window is a batch of its own.
    """
    inputs_N, targets_N = tokens_N[:-1], tokens_N[1:]
    whole = len(inputs_N) // block_size * block_size
    step = max(1, batch_tokens // block_size) * block_size
    for start in range(0, whole, step):
        end = min(start + step, whole)
        yield (
            inputs_N[start:end].view(-1, block_size).long(),
            targets_N[start:end].view(-1, block_size).long(),
        )
    if whole < len(inputs_N):
        yield inputs_N[None, whole:].long(), targets_N[None, whole:].long()
