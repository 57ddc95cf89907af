"""The optimizer of a stack of trials. Shapes: S steps, M members, P values of a member."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigram_models import kernels

BETAS = (0.9, 0.999)  # these are the defaults of `torch.optim.AdamW`
EPS = 1e-8
WEIGHT_DECAY = 1e-2
LARGEST = 1e37  # of a factor, so that float32 holds it


def adamw_scalars(rates_S: npt.NDArray[np.float64], first_step: int) -> npt.NDArray[np.float64]:
    """Return the factors of some updates of one member, (S, 3), for `adamw_`.

    Args:
        rates_S: learning rates of the updates.
        first_step: updates before the first of them.
    """
    updates_S = first_step + 1.0 + np.arange(len(rates_S))
    size_S = rates_S / (1 - BETAS[0] ** updates_S)
    unbias_S = (1 - BETAS[1] ** updates_S) ** -0.5
    with np.errstate(divide="ignore", over="ignore"):
        divisors = np.stack([unbias_S / size_S, EPS / size_S], axis=1)
    decay_S = 1 - rates_S * WEIGHT_DECAY
    return np.concatenate([np.minimum(divisors, LARGEST), decay_S[:, None]], axis=1)


def adamw_(
    values_MP: Tensor,
    gradient_MP: Tensor,
    average_MP: Tensor,
    square_MP: Tensor,
    scalars_S3M: Tensor,
    row_1: Tensor,
) -> None:
    """Take a step of AdamW (Loshchilov & Hutter 2019) for all members, in place.

    Args:
        values_MP: what is trained.
        gradient_MP: of the loss.
        average_MP: the running mean of gradients.
        square_MP: the running mean of their squares.
        scalars_S3M: from `adamw_scalars`: with the first two of a step, a and b, its update is
            average / (a sqrt(square) + b).
        row_1: which row of the scalars.
    """
    if values_MP.dtype == torch.float32 and kernels.usable(values_MP.device):
        kernels.adamw_(values_MP, gradient_MP, average_MP, square_MP, scalars_S3M, row_1, BETAS)
        return
    a_M1, b_M1, decay_M1 = scalars_S3M.index_select(0, row_1)[0].unsqueeze(-1)
    average_MP.lerp_(gradient_MP, 1 - BETAS[0])
    square_MP.mul_(BETAS[1]).addcmul_(gradient_MP, gradient_MP, value=1 - BETAS[1])
    divisor_MP = torch.addcmul(b_M1, square_MP.sqrt(), a_M1)
    values_MP.mul_(decay_M1).addcdiv_(average_MP, divisor_MP, value=-1)
