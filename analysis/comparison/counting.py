"""Ways of counting the same pairs, timed. Shapes: N tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from bigram_models import count_pairs
from trainables.training.timing import Timing, timed

LOOP_TOKENS = 100_000  # the first of the text, for the ways that take microseconds a token
LISTS = "Python lists, a loop"
ELEMENTS = "a tensor, a loop over its elements"
HISTOGRAM = "a tensor, vectorised: one histogram"
PAIRS = "a tensor, vectorised: the pairs that occur (`count_pairs`)"


@dataclass(frozen=True)
class Counted:
    """Time of a way of counting on a device, over the first `tokens` tokens of the text."""

    way: str
    device: str
    tokens: int
    timing: Timing

    @property
    def ns_per_token(self) -> float:
        """Median nanoseconds per token."""
        return self.timing.median_s / self.tokens * 1e9


def by_lists(tokens: Sequence[int], vocab_size: int) -> Tensor:
    """Count pairs (V, V) in a list of lists, one at a time."""
    counts = [[0] * vocab_size for _ in range(vocab_size)]
    for first, second in pairwise(tokens):
        counts[first][second] += 1
    return torch.tensor(counts)


def by_elements(tokens: Sequence[int], vocab_size: int, device: torch.device) -> Tensor:
    """Count pairs (V, V) in a tensor, one at a time."""
    counts_VV = torch.zeros(vocab_size, vocab_size, dtype=torch.int64, device=device)
    for first, second in pairwise(tokens):
        counts_VV[first, second] += 1
    return counts_VV


def by_histogram(tokens_N: Tensor, vocab_size: int) -> Tensor:
    """Count pairs (V, V) by a histogram of the codes id * V + next, all at once."""
    code_N = tokens_N[:-1].long() * vocab_size + tokens_N[1:]
    return torch.bincount(code_N, minlength=vocab_size**2).view(vocab_size, vocab_size)


def by_pairs(tokens_N: Tensor, vocab_size: int) -> Tensor:
    """Return a dense table (V, V) of the counts that `count_pairs` lists for pairs that occur."""
    pair_P, count_P = count_pairs(tokens_N, vocab_size)
    counts_VV = torch.zeros(vocab_size**2, dtype=torch.int64, device=tokens_N.device)
    counts_VV[pair_P] = count_P
    return counts_VV.view(vocab_size, vocab_size)


def time_counting(
    tokens_N: Tensor, vocab_size: int, devices: Sequence[torch.device]
) -> list[Counted]:
    """Time each way on the first `LOOP_TOKENS` tokens, and the fast ones on all of them.

    The tokens are prepared before the clock starts: as a list for the loops, on the device for the
    others.

    Raises:
        ArithmeticError: two ways do not agree.
    """
    found = []
    for size in sorted({min(LOOP_TOKENS, len(tokens_N)), len(tokens_N)}):
        few = tokens_N[:size].tolist()
        ways = [(LISTS, torch.device("cpu"), partial(by_lists, few, vocab_size))]
        for device in devices:
            few_N = tokens_N[:size].to(device)
            if size <= LOOP_TOKENS:
                ways.append((ELEMENTS, device, partial(by_elements, few, vocab_size, device)))
            ways.append((HISTOGRAM, device, partial(by_histogram, few_N, vocab_size)))
            ways.append((PAIRS, device, partial(by_pairs, few_N, vocab_size)))
        expected = by_lists(few, vocab_size)
        for way, device, count in ways:
            if not torch.equal(count().cpu(), expected):
                raise ArithmeticError(f"{way} on {device} counts {size} tokens differently")
            found.append(Counted(way, device.type, size, timed(count, device)))
    return found
