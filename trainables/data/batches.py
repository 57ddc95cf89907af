"""Windows of the text, and random streams.

Shapes: S steps, B batch, T time, N tokens of a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STEPS_AT_ONCE = 512  # of which the starts of windows are drawn together
WORDS = 4  # of 64 bits, that Philox gives for each value of its counter


def stream(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the random stream of a seed for one purpose, independent of those for others."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def initial_stream(seed: int) -> torch.Generator:
    """Return the random stream of a model's initial values, equal to `torch.manual_seed(seed)`.

    With it seed 1337 starts from the weights of the published study.
    """
    return torch.Generator().manual_seed(seed)


def batch_starts(
    seed: int, first_step: int, steps: int, batch_size: int, windows: int
) -> npt.NDArray[np.int64]:
    """Return where the windows of some steps start, drawn with replacement.

    They depend on seed and step alone, through a counter-based generator (Philox4x64-10, Salmon et
    al. 2011): any steps can be drawn in any order, and all devices get the same.

    Args:
        seed: of the trial.
        first_step: updates before the first of the steps.
        steps: S, how many.
        batch_size: B, windows of a step.
        windows: of the split, from which the starts are drawn.

    Returns:
        Numbers from 0 to windows - 1, (S, B).
    """
    digest = hashlib.sha256(f"{seed}/batches".encode()).digest()
    counts = -(-batch_size // WORDS)  # of the counter, for each step
    philox = np.random.Philox(key=int.from_bytes(digest[:16], "big"), counter=first_step * counts)
    words = philox.random_raw(steps * counts * WORDS).reshape(steps, -1)[:, :batch_size]
    uniform = (words >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    return (uniform * windows).astype(np.int64)


class WindowSampler:
    """Draws random windows with replacement from one split, on the split's device."""

    def __init__(self, tokens_N: Tensor, batch_size: int, block_size: int) -> None:
        self.windows_NT1 = tokens_N.unfold(0, block_size + 1, 1)  # a view: no copies
        self.batch_size = batch_size

    def batches(self, seed: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a trial from a step on: inputs and next tokens, (B, T) int64."""
        windows = len(self.windows_NT1)
        while True:
            starts_SB = batch_starts(seed, first_step, STEPS_AT_ONCE, self.batch_size, windows)
            for start_B in torch.from_numpy(starts_SB).to(self.windows_NT1.device):
                yield self._windows(start_B)
            first_step += STEPS_AT_ONCE

    def drawn(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches from a generator: inputs and next tokens, (B, T) int64."""
        while True:
            yield self.draw(generator)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch from a generator: inputs and next tokens, each (B, T) int64."""
        start_B = torch.randint(
            len(self.windows_NT1),
            (self.batch_size,),
            generator=generator,
            device=generator.device,
        )
        return self._windows(start_B.to(self.windows_NT1.device))

    def _windows(self, start_B: Tensor) -> tuple[Tensor, Tensor]:
        window_BT1 = self.windows_NT1.index_select(0, start_B).long()
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
