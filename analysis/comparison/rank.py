"""The best predictions of a table of logits of rank D, from pair counts, without training.

A factorised bigram has logits = E W^T + 1 b^T, and a softmax does not see a constant that is added
to a row. So any table of V rows is met exactly by a width of V - 1, and a smaller one may leave
something out. The least that it must leave out has no closed form: `nearest_factors` solves least
squares, which is another aim, and `likeliest` looks for the smallest cross entropy itself.

Shapes: N tokens, V vocabulary, D width. All tensors but token ids are float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.comparison.counting import by_histogram

ITERATIONS = 1_000  # of L-BFGS, from each start
RANDOM_STARTS = 2
SEED = 0  # of the random starts
LARGEST_V = 200  # above it the fits would take minutes: a look at the loss costs V * V * D products


@dataclass(frozen=True)
class Factors:
    """Factors E (V, D), W (V, D) and b (V,) of a table of logits E W^T + 1 b^T."""

    embed: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def logits(self) -> Tensor:
        return self.embed @ self.weight.T + self.bias

    def widened(self, rank: int, chance: torch.Generator) -> Factors:
        """Return factors of the same logits at a larger width; new columns of W are zero."""
        V, D = self.embed.shape
        fresh = torch.randn(V, rank - D, generator=chance, dtype=torch.float64)
        return Factors(
            torch.cat([self.embed, fresh], 1),
            torch.cat([self.weight, torch.zeros_like(fresh)], 1),
            self.bias,
        )


def pair_counts(tokens_N: Tensor, vocab_size: int) -> Tensor:
    """Count how often each token (row) is followed by each (column), (V, V)."""
    return by_histogram(tokens_N, vocab_size).double()


def cross_entropy(logits_VV: Tensor, counts_VV: Tensor) -> float:
    """Return the mean loss of logits (V, V) on counted pairs, in nats.

    It is infinite if a counted pair has probability 0.
    """
    seen = counts_VV > 0
    total = (counts_VV[seen] * logits_VV.double().log_softmax(1)[seen]).sum()
    return float(-total / counts_VV.sum())


def nearest_factors(logits_VV: Tensor, rank: int, row_weight_V: Tensor) -> Factors:
    """Return the best approximation of rank D in the sense of least squares.

    It minimises the sum of row_weight * (difference)^2 over E, W, b and a constant for each row,
    which a softmax does not see: rows are centred, b is their weighted mean, and the rest is cut to
    its D largest singular values (Eckart and Young 1936).
    """
    centred_VV = logits_VV - logits_VV.mean(1, keepdim=True)
    bias_V = row_weight_V @ centred_VV / row_weight_V.sum()
    rest_VV = centred_VV - bias_V
    _, _, right = torch.linalg.svd(row_weight_V.sqrt()[:, None] * rest_VV)
    weight_VD = right[:rank].T
    return Factors(rest_VV @ weight_VD, weight_VD, bias_V)


def likeliest(counts_VV: Tensor, start: Factors) -> Factors:
    """Minimise the cross entropy on the counts from a start, by L-BFGS on all of them.

    The aim is not convex in E and W together, so what is found is an upper bound of the least.
    """
    share_VV = counts_VV / counts_VV.sum()
    E, W, b = (
        part.clone(memory_format=torch.contiguous_format).requires_grad_()
        for part in (start.embed, start.weight, start.bias)
    )
    optimizer = torch.optim.LBFGS(
        [E, W, b], max_iter=ITERATIONS, max_eval=2 * ITERATIONS, history_size=20,
        tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        nats = -(share_VV * Factors(E, W, b).logits.log_softmax(1)).sum()
        nats.backward()  # type: ignore[no-untyped-call]
        return nats.detach()

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Factors(E.detach(), W.detach(), b.detach())


def likeliest_by_rank(
    counts_VV: Tensor, ranks: Iterable[int], near: Mapping[int, Factors] | None = None
) -> dict[int, Factors]:
    """Return the best of `likeliest` for each rank, from random starts and the rank before.

    The latter keeps a larger rank from being worse than a smaller one. A rank above V - 1 can do no
    more than V - 1, and has its answer.

    Args:
        counts_VV: what is to be predicted.
        ranks: the widths.
        near: answers for similar counts, as further starts.
    """
    full = len(counts_VV) - 1
    chance = torch.Generator().manual_seed(SEED)
    wanted = sorted(set(ranks))
    near = {min(rank, full): factors for rank, factors in (near or {}).items()}
    found: dict[int, Factors] = {}
    before: Factors | None = None
    for rank in sorted({min(rank, full) for rank in wanted}):
        starts = [_random_start(counts_VV, rank, chance) for _ in range(RANDOM_STARTS)]
        if before is not None:
            starts.append(before.widened(rank, chance))
        if rank in near:
            starts.append(near[rank])
        before = _best([likeliest(counts_VV, start) for start in starts], counts_VV)
        found[rank] = before
    return {rank: found[min(rank, full)] for rank in wanted}


def _random_start(counts_VV: Tensor, rank: int, chance: torch.Generator) -> Factors:
    """Draw E from N(0, 1) and W from N(0, 1/D); the bias is the log frequency of each token."""
    E, W = (
        torch.randn(len(counts_VV), rank, generator=chance, dtype=torch.float64) for _ in range(2)
    )
    return Factors(E, W / max(rank, 1) ** 0.5, (counts_VV.sum(0) + 1).log())


def _best(fits: Sequence[Factors], counts_VV: Tensor) -> Factors:
    return min(fits, key=lambda fit: cross_entropy(fit.logits, counts_VV))
