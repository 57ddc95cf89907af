"""Which errors say that a GPU is full."""

from __future__ import annotations

import pytest
import torch

from trainables.training.gpu_memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCompile with ..."), True)
        if hasattr(torch, "AcceleratorError")
        else (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate"),
         False),
        (MemoryError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)  # fmt: skip
def test_what_says_that_a_gpu_is_full(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
