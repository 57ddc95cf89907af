"""What the kernels of a GPU compute, against PyTorch in float64.

`test_kernels` calls these where Triton interprets.

Shapes: M members, B batch, T time, D width, V vocabulary, N places B * T, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models import AttentionBigram, kernels
from bigram_models.fused_attention import FusedAttention
from bigram_models.positions import ENCODINGS
from bigram_models.stacked import StepWindows

STEPS, ROW = 3, 2  # in the tables that a step reads, and its own
GUARD = 5000  # cells behind each result, which nothing may write to


@dataclass(frozen=True)
class Sizes:
    """Sizes of a stack: neither powers of two, nor multiples of a block."""

    M: int
    B: int
    T: int
    D: int
    V: int


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, with guard cells behind them."""
    chance = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel()
    cells = torch.randn(count + GUARD, generator=chance)
    cells[count:] = 7.0
    return cells[:count].view(shape)


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Compare with float64 values, relative to the largest of them; look at the guard cells."""
    assert found.dtype == torch.float32
    off = (found.double() - expected).abs().max() / expected.abs().max()
    assert off <= tolerance, f"off by {off:.2g} of the largest value"
    if found.untyped_storage().nbytes() // 4 == found.numel() + GUARD:
        guard = torch.as_strided(found, (GUARD,), (1,), found.numel())
        assert bool((guard == 7.0).all()), "cells behind the result were written"


@dataclass(frozen=True)
class Windows:
    """A text and the starts of windows, the last possible one among them."""

    tokens: Tensor  # (200,)
    starts: Tensor  # (S, M, B)
    row: Tensor  # (1,)
    ids: Tensor  # in the windows of this row, (M, B, T + 1)

    @property
    def place(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tokens, self.starts, self.row


def windows(sizes: Sizes) -> Windows:
    chance = torch.Generator().manual_seed(3)
    tokens_N = torch.randint(sizes.V, (200,), generator=chance, dtype=torch.int32)
    last = len(tokens_N) - sizes.T - 1
    starts_SMB = torch.randint(last, (STEPS, sizes.M, sizes.B), generator=chance)
    starts_SMB[ROW, -1, -1] = last
    ids_MBT1 = tokens_N.unfold(0, sizes.T + 1, 1)[starts_SMB[ROW]].long()
    return Windows(tokens_N, starts_SMB, torch.tensor([ROW]), ids_MBT1)


def turns(sizes: Sizes) -> Tensor:
    """Unit complex numbers for each member, position and pair of channels, as real pairs."""
    angle = random(sizes.M, sizes.T, sizes.D // 2, seed=4)
    return torch.stack([angle.cos(), angle.sin()], -1)


def turned(x_MBTD: Tensor, turn_MTD22: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x_MBTD.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(turn_MTD22.double())[:, None]).flatten(
        -2
    )


def check_embedding(sizes: Sizes) -> None:
    M, B, T, D, V = sizes.M, sizes.B, sizes.T, sizes.D, sizes.V
    offset, text = 11, windows(sizes)
    values_MP = random(M, offset + V * D + 4)
    turn, table_MTD = turns(sizes), random(M, T, D, seed=1)
    ids_MBT = text.ids[..., :-1]
    embed_MVD = values_MP[:, offset : offset + V * D].view(M, V, D)
    own_MBTD = torch.stack([embed_MVD[m][ids_MBT[m]] for m in range(M)])
    expected = turned(own_MBTD, turn) + table_MTD[:, None].double()
    x_MBTD = random(M, B, T, D, seed=3)
    kernels.embed_windows(values_MP, offset, *text.place, turn, table_MTD, x_MBTD)
    assert_same(x_MBTD, expected)


def check_embedding_gradient(sizes: Sizes) -> None:
    M, B, T, D, V = sizes.M, sizes.B, sizes.T, sizes.D, sizes.V
    text, turn, d_x_MBTD = windows(sizes), turns(sizes), random(M, B, T, D)
    own_MND = turned(d_x_MBTD, turn * torch.tensor([1.0, -1.0])).flatten(1, 2)
    token_MN = text.ids[..., :-1].flatten(1)
    expected = torch.zeros(M, V, D, dtype=torch.float64)
    for m in range(M):
        expected[m].index_add_(0, token_MN[m], own_MND[m])
    gradient_MP = random(M, V * D + 3, seed=1)
    gradient_MP[:, -1] = 5.0
    found = gradient_MP[:, 2 : V * D + 2].view(M, V, D)
    kernels.embedding_gradient(d_x_MBTD, turn, *text.place, found)
    assert_same(found, expected)
    assert bool((gradient_MP[:, -1] == 5.0).all())


def check_softmax(sizes: Sizes) -> None:
    shape, scale = (sizes.M, sizes.B, sizes.T, sizes.T), 0.25
    future_TT = torch.full(shape[2:], torch.nan).triu(1)
    score = random(*shape).mul_(9.0)
    score[0, 0] += 1000.0  # which overflows without a shift
    expected = (score.double() * scale).tril() + torch.full(shape[2:], -torch.inf).triu(1)
    score += future_TT  # which nothing may read
    kernels.causal_softmax_(score, scale)
    assert_same(score, expected.softmax(-1))


def check_softmax_backward(sizes: Sizes) -> None:
    shape, scale = (sizes.M, sizes.B, sizes.T, sizes.T), 0.3
    score, d_weight = random(*shape).double().requires_grad_(), random(*shape, seed=1)
    weight = (score * scale + torch.full(shape[2:], -torch.inf).triu(1)).softmax(-1)
    (d_score,) = torch.autograd.grad((weight * d_weight).sum(), score)
    d_weight += torch.full(shape[2:], torch.nan).triu(1)
    kernels.softmax_backward_(weight.detach().float(), d_weight, scale)
    assert_same(d_weight, d_score + d_score.mT)


def check_mixing(sizes: Sizes) -> None:
    shape, scale = (sizes.M, sizes.B, sizes.T, sizes.D), 0.25
    x_MBTD, d_mixed_MBTD = random(*shape).mul_(3.0), random(*shape, seed=1)
    x_MBTD[0, 0] *= 20.0  # whose scores overflow without a shift
    leaf = x_MBTD.double().requires_grad_()
    future_TT = torch.full((sizes.T, sizes.T), -torch.inf).triu(1)
    score_MBTT = leaf @ leaf.mT * scale + future_TT
    expected = score_MBTT.softmax(-1) @ leaf
    (d_x_MBTD,) = torch.autograd.grad((expected * d_mixed_MBTD).sum(), leaf)
    mixed_MBTD, log_sum_MBT = random(*shape, seed=2), random(*shape[:3], seed=3)
    kernels.mix(x_MBTD, scale, mixed_MBTD, log_sum_MBT)
    assert_same(mixed_MBTD, expected.detach())
    assert_same(log_sum_MBT, score_MBTT.detach().logsumexp(-1))
    found = random(*shape, seed=4)
    kernels.mix_backward(x_MBTD, scale, mixed_MBTD, log_sum_MBT, d_mixed_MBTD, found)
    assert_same(found, d_x_MBTD, tolerance=1e-5)


def check_cross_entropy(sizes: Sizes) -> None:
    M, N, V = sizes.M, sizes.B * sizes.T, sizes.V
    text, scale = windows(sizes), 1 / N
    values_MP = random(M, V + 9, seed=1)
    bias_MV, logits_MNV, loss_MN = values_MP[:, 5 : V + 5], random(M, N, V), random(M, N, seed=2)
    logits_MNV[0, 0] += 100.0  # which overflows without a shift
    leaf = logits_MNV.double().requires_grad_()
    biased, target_MN = leaf + bias_MV[:, None], text.ids[..., 1:].flatten(1)
    expected = F.cross_entropy(biased.flatten(0, 1), target_MN.flatten(), reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum() * scale, leaf)
    kernels.cross_entropy_(logits_MNV, bias_MV, *text.place, sizes.T, scale, loss_MN)
    assert_same(logits_MNV, gradient)
    assert_same(loss_MN, expected.detach().view(M, N))


def check_adamw(sizes: Sizes) -> None:
    M, P = sizes.M, 2500
    values, average = random(M, P), random(M, P, seed=1)
    square, gradient = random(M, P, seed=2).square_(), random(M, P, seed=3)
    for cells in (values, average, square):
        torch.as_strided(cells, (GUARD,), (1,), M * P).fill_(7.0)
    rate_M, step = torch.rand(M).double().add_(0.5), 20
    optimizers = []
    for m in range(M):
        leaf = values[m].double().requires_grad_()
        leaf.grad = gradient[m].double()
        optimizer = torch.optim.AdamW([leaf], lr=float(rate_M[m]))
        optimizer.state[leaf] = {
            "step": torch.tensor(float(step - 1)),
            "exp_avg": average[m].double(),
            "exp_avg_sq": square[m].double(),
        }
        optimizer.step()
        optimizers.append((leaf.detach(), optimizer.state[leaf]))
    size_M, unbias = rate_M / (1 - 0.9**step), (1 - 0.999**step) ** -0.5
    scalars_S3M = torch.full((STEPS, 3, M), torch.nan)
    scalars_S3M[ROW] = torch.stack([unbias / size_M, 1e-8 / size_M, 1 - rate_M * 1e-2])
    kernels.adamw_(values, gradient, average, square, scalars_S3M, torch.tensor([ROW]))
    assert_same(values, torch.stack([leaf for leaf, _ in optimizers]))
    assert_same(average, torch.stack([state["exp_avg"] for _, state in optimizers]))
    assert_same(square, torch.stack([state["exp_avg_sq"] for _, state in optimizers]))


def check_gradient_of_a_step(sizes: Sizes) -> None:
    """Compare with autograd through the definition of each member."""
    text, names = windows(sizes), list(ENCODINGS)[-sizes.M :]
    alone, together = (
        [attention(name, sizes, seed) for seed, name in enumerate(names)] for _ in range(2)
    )
    formulas = [model.position.rotate_and_add() for model in together]
    stack = FusedAttention(together, [formula for formula in formulas if formula])
    loss_M, gradient_MP = stack.gradient(StepWindows(*text.place, sizes.T))
    found = stack.views(gradient_MP)
    for m, model in enumerate(alone):
        logits_NV = model.double()(text.ids[m, :, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits_NV, text.ids[m, :, 1:].flatten())
        names = [name for name, _ in model.named_parameters()]
        expected = torch.autograd.grad(loss, list(model.parameters()))
        assert_same(loss_M[m], loss.detach())
        for name, part in zip(names, expected, strict=True):
            assert_same(found[name][m], part, tolerance=5e-6)


def attention(pe_type: str, sizes: Sizes, seed: int) -> AttentionBigram:
    config = AttentionBigram.Config(pe_type=pe_type, n_embd=sizes.D)
    return AttentionBigram(config, sizes.V, sizes.T, torch.Generator().manual_seed(seed))
