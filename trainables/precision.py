"""Number formats of the matrix products in training steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

# float32: 23 bits of mantissa. tf32: products with 10 bits, on GPUs that have them. bf16: products
# of numbers with 7 bits, by torch's automatic mixed precision.
Precision = Literal["float32", "tf32", "bf16"]


@contextmanager
def computed_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Context manager: compute matrix products in this precision.

    Parameters, losses and optimizer moments stay float32.
    """
    if precision == "bf16":
        # Without a cache, which would keep the casts of weights from before the step.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
    elif precision == "tf32":
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
    else:
        yield
