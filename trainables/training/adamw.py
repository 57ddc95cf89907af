"""The optimizer of a stack of trials. Shapes: M members, ... those of a parameter."""

from __future__ import annotations

from torch import Tensor


def adamw_(
    parameter: Tensor,
    gradient: Tensor,
    average: Tensor,
    square: Tensor,
    step_M: Tensor,
    rate_M: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    """Take a step of AdamW (Loshchilov & Hutter 2019) for all members, in place.

    The defaults are those of `torch.optim.AdamW`.

    Args:
        parameter: (M, ...).
        gradient: of the parameter, (M, ...).
        average: the running mean of gradients, (M, ...).
        square: the running mean of their squares, (M, ...).
        step_M: updates of each member so far, this one included.
        rate_M: the learning rate of each member.
    """
    shape = (-1, *(1 for _ in parameter.shape[1:]))
    steps, rate = step_M.double().view(shape), rate_M.double().view(shape)
    step_size = (rate / (1 - betas[0] ** steps)).to(parameter.dtype)
    unbias = (1 - betas[1] ** steps).rsqrt().to(parameter.dtype)
    parameter.mul_((1 - rate * weight_decay).to(parameter.dtype))
    average.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    parameter.sub_(average.mul(step_size).div_(square.sqrt().mul_(unbias).add_(eps)))
