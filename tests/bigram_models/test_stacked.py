"""Models as one stack compute what they compute alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models import VARIANTS, LanguageModel
from bigram_models.positions import ENCODINGS, PositionalEncoding
from bigram_models.stacked import LoopedModel, StackedModel, StepWindows
from tests.model_cases import SETTINGS, TRAINED

V, BLOCK = 7, 6
STACKS = {  # the settings of the members
    **{variant: (variant, [SETTINGS[variant][0]] * 3) for variant in TRAINED},
    **{name: ("attention", [{"pe_type": name, "n_embd": 4}] * 3) for name in ENCODINGS},
    "odd width": ("attention", [{"pe_type": "randn", "n_embd": 5}] * 2),
    "added": ("attention", [{"pe_type": each, "n_embd": 4} for each in ("randn", "sinpe")]),
    "mixed": ("attention", [{"pe_type": name, "n_embd": 4} for name in ENCODINGS]),
    "mixed, wider than V": (
        "attention",
        [{"pe_type": name, "n_embd": 12} for name in ("rope", *ENCODINGS)],
    ),
}
every_stack = pytest.mark.parametrize(("variant", "settings"), STACKS.values(), ids=STACKS)


def build(variant: str, settings: dict[str, Any], seed: int) -> LanguageModel:
    make: Any = VARIANTS[variant]
    chance = torch.Generator().manual_seed(seed)
    model: LanguageModel = make(make.Config(**settings), V, BLOCK, chance)
    return model


def members(variant: str, settings: list[dict[str, Any]]) -> list[LanguageModel]:
    return [build(variant, each, seed) for seed, each in enumerate(settings)]


def ids(*shape: int) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(1))


@every_stack
@pytest.mark.parametrize("length", [1, BLOCK])
@pytest.mark.parametrize("rows", [2, 40])  # few pairs, and more than the vocabulary has
def test_logits_are_those_of_the_members(
    variant: str, settings: list[dict[str, Any]], length: int, rows: int
) -> None:
    alone, together = members(variant, settings), members(variant, settings)
    stack = type(together[0]).stacked(together)
    own_MBT, shared_BT = ids(len(alone), rows, length), ids(rows, length)
    for i, model in enumerate(alone):
        torch.testing.assert_close(stack(own_MBT)[i], model(own_MBT[i]))
        torch.testing.assert_close(stack(shared_BT)[i], model(shared_BT))


@every_stack
def test_gradients_are_those_of_the_members(variant: str, settings: list[dict[str, Any]]) -> None:
    alone, together = members(variant, settings), members(variant, settings)
    stack = type(together[0]).stacked(together)
    ids_MBT = ids(len(alone), 4, BLOCK)
    for i, model in enumerate(alone):
        model(ids_MBT[i]).square().mean().backward()
    values_MP = stack.values_MP.detach().requires_grad_()
    parameters = stack.views(values_MP)
    losses_M = stack._logits(parameters, ids_MBT).square().flatten(1).mean(1)
    (found_MP,) = torch.autograd.grad(losses_M.sum(), values_MP)
    found = stack.views(found_MP)
    assert list(found) == [name for name, _ in alone[0].named_parameters()]
    for name, gradient in found.items():
        for i, model in enumerate(alone):
            torch.testing.assert_close(gradient[i], model.get_parameter(name).grad)


@every_stack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 40])  # few pairs, and more than the vocabulary has
def test_a_step_has_the_loss_and_the_gradient_of_each_member(
    variant: str, settings: list[dict[str, Any]], rows: int, dtype: torch.dtype
) -> None:
    """Compare with autograd through the cross entropy of each member's own forward pass."""
    alone, together = members(variant, settings), members(variant, settings)
    for model in (*alone, *together):
        if dtype == torch.float64:
            model.double()
    tokens_N, chance = ids(100).int(), torch.Generator().manual_seed(2)
    starts_SMB = torch.randint(94, (3, len(alone), rows), generator=chance)
    windows = StepWindows(tokens_N, starts_SMB, torch.tensor([1]), BLOCK)
    torch.set_default_dtype(dtype)
    try:
        stack = type(together[0]).stacked(together)
        loss_M, gradient_MP = stack.gradient(windows)
    finally:
        torch.set_default_dtype(torch.float32)
    assert gradient_MP.dtype == loss_M.dtype == dtype
    for i, model in enumerate(alone):
        window_BT1 = torch.stack([tokens_N[s : s + BLOCK + 1] for s in starts_SMB[1, i]]).long()
        logits_NV = model(window_BT1[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits_NV, window_BT1[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(loss_M[i], loss.detach())
        for name, gradient in stack.views(gradient_MP).items():
            torch.testing.assert_close(gradient[i], model.get_parameter(name).grad)


@every_stack
def test_what_is_done_to_the_stack_is_done_to_its_members(
    variant: str, settings: list[dict[str, Any]]
) -> None:
    together = members(variant, settings)
    stack = type(together[0]).stacked(together)
    with torch.no_grad():
        for tensor in stack.parameters.values():
            tensor.mul_(torch.arange(1.0, len(together) + 1).view(-1, *[1] * (tensor.dim() - 1)))
    expected = members(variant, settings)
    for i, (model, before) in enumerate(zip(together, expected, strict=True)):
        for name, tensor in model.named_parameters():
            assert torch.equal(tensor, before.get_parameter(name) * (i + 1))
        assert model.state_dict().keys() == before.state_dict().keys()


def test_only_settings_that_the_stack_can_tell_apart_may_differ() -> None:
    attention, factorized = VARIANTS["attention"], VARIANTS["factorized"]
    widths = [
        attention.Config(pe_type=p, n_embd=n) for p, n in (("rope", 4), ("randn", 4), ("rope", 6))
    ]
    rope, randn, wider = (attention.stack_kind(config) for config in widths)
    assert rope == randn != wider
    assert factorized.stack_kind(factorized.Config(n_embd=4)) != factorized.stack_kind(
        factorized.Config(n_embd=5)
    )


class Scaled(PositionalEncoding):
    """x * (1 + position), which gives no formula for stacks."""

    def __init__(self, block_size: int, n_embd: int, generator: torch.Generator) -> None:
        super().__init__(block_size, n_embd, generator)
        self.register_buffer("scale_T1", 1 + torch.arange(block_size)[:, None] / block_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * self.get_buffer("scale_T1")[: x_BTD.shape[1]]


def test_an_encoding_without_a_formula_is_stacked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "scaled", Scaled)
    for names, model in (
        (["scaled", "scaled"], StackedModel),
        (["scaled", "rope", "sinpe"], LoopedModel),
    ):
        settings = [{"pe_type": name, "n_embd": 4} for name in names]
        alone, together = members("attention", settings), members("attention", settings)
        stack = type(together[0]).stacked(together)
        assert type(stack) is model
        ids_MBT = ids(len(names), 2, BLOCK)
        for i, member in enumerate(alone):
            torch.testing.assert_close(stack(ids_MBT)[i], member(ids_MBT[i]))
