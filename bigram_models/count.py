"""The statistical bigram, from counts of neighbouring tokens.

Shapes: B batch, T time, V vocabulary, N tokens, P distinct pairs, U distinct ids in a batch.

The counts are compressed sparse rows, whose memory grows with the pairs that occur and not with
V * V. Counting is one pass: a histogram of the pair codes where a V x V histogram is small,
otherwise a sort of the codes. A long text is counted in pieces: each code takes eight bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bigram_models.base import FittedModel

DENSE_CELLS = 1 << 24  # the largest V * V that is counted by a histogram: 128 MiB of int64
PAIRS_AT_ONCE = 1 << 20


class CountBigram(FittedModel):
    """p(next | id) = (count(id, next) + k) / (count(id) + k V), fitted by counting.

    Without smoothing (k = 0) a row that was never seen is uniform.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        smoothing: float = 1.0  # k, added to every count (Laplace 1814 for k = 1)

        def __post_init__(self) -> None:
            if not (0 <= self.smoothing < math.inf):
                raise ValueError(f"smoothing must be zero or more, not {self.smoothing}")

    def __init__(
        self, config: Config, vocab_size: int, block_size: int, generator: torch.Generator
    ) -> None:
        super().__init__(vocab_size, context_size=1)
        self.smoothing = float(config.smoothing)
        self.register_buffer("row_start_V1", torch.zeros(vocab_size + 1, dtype=torch.int64))
        self.register_buffer("successor_P", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("count_P", torch.zeros(0, dtype=torch.int64))
        self.row_start_V1: Tensor
        self.successor_P: Tensor
        self.count_P: Tensor

    def fit(self, tokens_N: Tensor) -> None:
        pair_P, self.count_P = count_pairs(tokens_N, self.vocab_size)
        self.successor_P = pair_P % self.vocab_size
        first_of_row_V1 = torch.arange(self.vocab_size + 1, device=pair_P.device) * self.vocab_size
        self.row_start_V1 = torch.searchsorted(pair_P, first_of_row_V1)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return log-probabilities (which are logits too) (B, T, V).

        Only the rows of ids that occur are made dense.
        """
        ids_U, position_BT = torch.unique(ids_BT, return_inverse=True)
        return self._log_probabilities(ids_U)[position_BT]

    def _log_probabilities(self, ids_U: Tensor) -> Tensor:
        """Return the rows (U, V) of log p(next | id)."""
        start_U = self.row_start_V1[ids_U]
        pairs_U = self.row_start_V1[ids_U + 1] - start_U
        row = torch.arange(len(ids_U), device=ids_U.device).repeat_interleave(pairs_U)
        offset_in_row = (
            torch.arange(len(row), device=row.device) - (pairs_U.cumsum(0) - pairs_U)[row]
        )
        pair = start_U[row] + offset_in_row
        weight_UV = torch.full((len(ids_U), self.vocab_size), self.smoothing, device=ids_U.device)
        weight_UV[row, self.successor_P[pair]] += self.count_P[pair]
        total_U1 = weight_UV.sum(-1, keepdim=True)
        uniform = 1 / self.vocab_size
        return torch.where(total_U1 > 0, weight_UV / total_U1, uniform).log()

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        """Load counts of any number of distinct pairs, which depends on the fitted text."""
        for name in ("successor_P", "count_P"):
            setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def count_pairs(tokens_N: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Count each distinct pair of neighbouring tokens.

    Returns:
        pair_P: id * V + next of each pair that occurs, ascending, int64.
        count_P: how often each occurs, int64.

    Raises:
        ValueError: the text holds no pair.
    """
    if len(tokens_N) < 2:
        raise ValueError(f"counting pairs needs at least 2 tokens, not {len(tokens_N)}")
    if vocab_size**2 > DENSE_CELLS:
        return _count_by_sorting(tokens_N, vocab_size)
    histogram = torch.zeros(vocab_size**2, dtype=torch.int64, device=tokens_N.device)
    for pair_N in _pairs(tokens_N, vocab_size, max(PAIRS_AT_ONCE, vocab_size**2)):
        histogram += torch.bincount(pair_N, minlength=vocab_size**2)
    pair_P = histogram.nonzero().squeeze(-1)
    return pair_P, histogram[pair_P]


def _count_by_sorting(tokens_N: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    pair_P = count_P = torch.zeros(0, dtype=torch.int64, device=tokens_N.device)
    for pair_N in _pairs(tokens_N, vocab_size, PAIRS_AT_ONCE):
        new_P, new_count_P = torch.unique(pair_N, return_counts=True)
        pair_P, place = torch.unique(torch.cat((pair_P, new_P)), return_inverse=True)
        counts = torch.cat((count_P, new_count_P))
        count_P = torch.zeros_like(pair_P).index_add_(0, place, counts)
    return pair_P, count_P


def _pairs(tokens_N: Tensor, vocab_size: int, at_once: int) -> Iterator[Tensor]:
    """Yield the codes id * V + next of neighbouring tokens, at most at_once of them, int64."""
    for start in range(0, len(tokens_N) - 1, at_once):
        piece_N = tokens_N[start : start + at_once + 1].long()
        yield piece_N[:-1] * vocab_size + piece_N[1:]


def conditional_entropy(pair_P: Tensor, count_P: Tensor, vocab_size: int) -> float:
    """Return the entropy of a token given the previous one, from the result of `count_pairs`.

    No bigram model can have a lower loss on the counted text.

    Returns:
        Nats per predicted token (Shannon 1951, F_2 with the natural logarithm).

    Raises:
        ValueError: the counts are empty.
    """
    if count_P.sum() == 0:
        raise ValueError("the conditional entropy of no pairs is not defined")
    count_P = count_P.double()
    row_P = pair_P // vocab_size
    total_V = torch.zeros(vocab_size, dtype=torch.float64).index_add_(0, row_P, count_P)
    return float((count_P * (total_V[row_P] / count_P).log()).sum() / count_P.sum())
