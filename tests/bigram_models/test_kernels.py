"""The kernels of a GPU, run by Triton's interpreter on the CPU, compute what PyTorch does.

Triton decides at its import whether it interprets, so the checks run in a process of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor

from bigram_models import kernels
from tests.bigram_models.kernel_checks import (
    Sizes,
    check_adamw,
    check_cross_entropy,
    check_embedding,
    check_embedding_gradient,
    check_gradient_of_a_step,
    check_mixing,
    check_softmax,
    check_softmax_backward,
)

EVERY_SIZE = (Sizes(M=2, B=3, T=5, D=6, V=65), Sizes(M=3, B=7, T=20, D=12, V=7))
Check = Callable[[Sizes], None]
CHECKS: tuple[Check, ...] = (
    check_embedding,
    check_embedding_gradient,
    check_softmax,
    check_softmax_backward,
    check_mixing,
    check_cross_entropy,
    check_adamw,
    check_gradient_of_a_step,
)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Executor]:
    if not kernels.AVAILABLE and os.environ.get("CI"):
        pytest.fail("triton is not installed; it is part of the dev extra")
    if not kernels.AVAILABLE:
        pytest.skip("triton is not installed; `make test` installs it on Linux x86_64")
    with ProcessPoolExecutor(1, get_context("spawn"), _interpret) as executor:
        yield executor


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)


@pytest.mark.parametrize("sizes", EVERY_SIZE, ids=["small", "several blocks"])
@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_a_kernel_computes_what_torch_does(
    check: Check, sizes: Sizes, interpreter: Executor
) -> None:
    interpreter.submit(check, sizes).result()


@pytest.mark.parametrize(
    ("vocab_size", "block_size", "n_embd", "is_supported"),
    [
        (65, 8, 64, True),
        (8192, 128, 4096, True),
        (8193, 8, 64, False),
        (65, 129, 64, False),
        (65, 8, 4098, False),
        (65, 8, 63, False),
    ],
)
def test_sizes_that_fit_into_a_block_are_supported(
    vocab_size: int, block_size: int, n_embd: int, is_supported: bool
) -> None:
    assert kernels.supports(vocab_size, block_size, n_embd) is is_supported


@pytest.mark.parametrize(
    ("block_size", "n_embd", "is_supported"),
    [(16, 512, True), (5, 1024, True), (17, 64, False), (16, 514, False)],
)
def test_short_windows_are_mixed_by_a_kernel(
    block_size: int, n_embd: int, is_supported: bool
) -> None:
    assert kernels.supports_mix(block_size, n_embd) is is_supported


@pytest.mark.parametrize(
    ("check", "sizes"),
    [
        (check_softmax_backward, Sizes(M=1, B=1, T=128, D=2, V=2)),
        (check_embedding_gradient, Sizes(M=2, B=2, T=3, D=70, V=140)),
        (check_gradient_of_a_step, Sizes(M=2, B=3, T=18, D=6, V=65)),
        (check_gradient_of_a_step, Sizes(M=2, B=64, T=8, D=4, V=5)),
    ],
    ids=["longest windows", "blocks of widths and tokens", "long windows", "sums of two parts"],
)
def test_large_sizes_are_computed(check: Check, sizes: Sizes, interpreter: Executor) -> None:
    interpreter.submit(check, sizes).result()


def test_a_cpu_uses_no_kernels() -> None:
    assert kernels.usable(torch.device("cpu")) is False


def test_training_goes_on_where_kernels_do_not_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*tensors: Tensor) -> None:
        raise RuntimeError("Failed to find C compiler.\nA traceback")

    gpu = torch.device("cuda")
    monkeypatch.setattr(kernels, "AVAILABLE", True)
    monkeypatch.setattr(kernels, "adamw_", no_compiler)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.empty(shape).zero_())
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.empty(shape).zero_())
    assert kernels.usable.__wrapped__(gpu) is False
    assert "without fused kernels: Failed to find C compiler." in caplog.text
    assert "traceback" not in caplog.text


def test_kernels_are_off_where_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "AVAILABLE", False)
    assert kernels.usable.__wrapped__(torch.device("cuda")) is False
