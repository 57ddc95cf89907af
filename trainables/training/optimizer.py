"""AdamW of a trial that trains alone: torch's own, without torch's compiler."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """The AdamW of torch; the same updates, bit for bit.

    torch hides these methods from its compiler, and imports the compiler for it: that takes a
    second and 70 MiB in each worker, where nothing is compiled.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
