"""Recognises errors by a lack of GPU memory. Knows no Ray."""

from __future__ import annotations

import torch

# Messages of CUDA and its libraries, which raise no OutOfMemoryError.
NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a GPU has too little memory. The host's does not count."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
