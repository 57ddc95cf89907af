"""The optimizer of a single trial: torch's AdamW, bit for bit, and without its compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainables.training.optimizer import AdamW

ROOT = Path(__file__).parents[2]


def trained(kind: type[torch.optim.AdamW]) -> tuple[Tensor, dict[str, object]]:
    """A parameter after some steps, half of them by an optimizer that took over the state."""
    chance = torch.Generator().manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(4, 4, generator=chance))
    optimizer = kind([weight], lr=0.1, fused=True)
    for step in range(6):
        if step == 3:
            state = optimizer.state_dict()
            optimizer = kind([weight], lr=0.1, fused=True)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        (weight @ torch.randn(4, generator=chance)).square().sum().backward()
        optimizer.step()
    return weight.detach(), optimizer.state_dict()["param_groups"][0]


def test_it_takes_the_steps_of_torch() -> None:
    weight, group = trained(AdamW)
    expected, known = trained(torch.optim.AdamW)
    assert torch.equal(weight, expected)
    assert group == known


@pytest.mark.parametrize("kind", ["trainables.training.optimizer", "torch.optim"])
def test_it_leaves_the_compiler_alone(kind: str) -> None:
    code = f"""
import sys, torch
from {kind} import AdamW
weight = torch.nn.Parameter(torch.ones(2))
optimizer = AdamW([weight], fused=True)
optimizer.zero_grad()
weight.sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{kind == 'torch.optim'}\n"
