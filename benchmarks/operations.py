"""Operations of a training step of `attention`: by its plain definition, and as executed.

Only matrix products are counted, a product and a sum as two operations: the rest is of lower
order. B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode

FLOAT = 4  # bytes


def attention_operations(B: int, T: int, D: int, V: int) -> int:
    """Return the operations of a step by the definition: scores x x^T, weights x, and the head.

    Forward there are B T T D products in the scores, as many in the mixing (all pairs of positions,
    the masked ones too: that is what a matrix product computes), and B T D V in the head. Backward
    each product of two matrices has two gradients of the same size.
    """
    forward = 2 * B * T * T * D + 2 * B * T * T * D + 2 * B * T * D * V
    return 3 * forward


def attention_bytes(B: int, T: int, D: int, V: int) -> int:
    """Return the bytes that a step moves if each tensor of the definition goes to memory.

    Forward each is written and read once: E[id], x and mixed (B T D), scores and weights (B T T),
    logits (B T V). Backward each is read once more, its gradient written and read. A parameter is
    read forward and backward, its gradient written, and AdamW reads four tensors (the parameter,
    its gradient, two moments) and writes three. What stays in a cache may be faster than this.
    """
    activations = 3 * B * T * D + 2 * B * T * T + B * T * V
    parameters = V * D + D * V + V
    return FLOAT * ((2 + 3) * activations + (2 + 1 + 4 + 3) * parameters)


def executed_operations(step: Callable[[], object]) -> int:
    """Return the operations of matrix products that a step executes, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
