"""Texts of several models at once, token by token.

Shapes: M models, B texts of each, T time, V vocabulary, R = M * V rows of all models' tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from bigram_models.stacked import off_by

if TYPE_CHECKING:
    from bigram_models.base import LanguageModel

# For a token a GPU needs the time of some 20 launches; meanwhile a CPU core computes that of so
# many bytes of parameters, which 30 models of the largest published shape have.
CPU_BYTES = 4 << 20


class Predictor(Protocol):
    """Computes next-token logits of several models as they are now, without gradients."""

    device: torch.device  # of the ids and the logits

    def __call__(self, ids_MBT: Tensor) -> Tensor:
        """Return the logits (M, B, V) after the last token of ids (M, B, T).

        From call to call each text gets one more token, and may lose its first one.
        """


class ForwardPredictor:
    """Runs `LanguageModel.next_logits`, of several models by `torch.func.vmap`."""

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        self.device = device_of(members[0])
        self._modules = [_NextLogits(member) for member in members]
        self._tensors = stack_module_state(self._modules) if len(members) > 1 else None
        self._is_checked = False

    def __call__(self, ids_MBT: Tensor) -> Tensor:
        if self._tensors is None:
            alone_BV: Tensor = self._modules[0](ids_MBT[0])
            return alone_BV[None]
        run = torch.func.vmap(
            lambda tensors, ids_BT: functional_call(self._modules[0], tensors, (ids_BT,))
        )
        logits_MBV: Tensor = run(self._tensors, ids_MBT)
        if not self._is_checked:
            self._check(logits_MBV, ids_MBT)
        return logits_MBV

    def _check(self, logits_MBV: Tensor, ids_MBT: Tensor) -> None:
        """Raise `ValueError` if the models differ in more than tensors, so that one is not all."""
        alone = [module(ids_BT) for module, ids_BT in zip(self._modules, ids_MBT, strict=True)]
        if off := off_by(logits_MBV, torch.stack(alone)):
            raise ValueError(f"a model gives other logits alone, off by {off:.2g}")
        self._is_checked = True


class _NextLogits(nn.Module):
    """A model whose forward pass is `LanguageModel.next_logits`."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.model.next_logits(ids_BT)


class TablePredictor:
    """Looks logits up in a table (V, V) of each model, by the last token."""

    def __init__(self, tables: Sequence[Tensor], device: torch.device) -> None:
        self.device = device
        self._logits_RV = torch.cat(list(tables)).to(device)
        self._first_row_M1 = first_rows(len(tables), len(tables[0]), device)

    def __call__(self, ids_MBT: Tensor) -> Tensor:
        return F.embedding(ids_MBT[..., -1] + self._first_row_M1, self._logits_RV)


def first_rows(models: int, rows: int, device: torch.device) -> Tensor:
    """Return the first row (M, 1) of each model in a table that has so many rows for each."""
    return rows * torch.arange(models, device=device)[:, None]


def device_of(model: LanguageModel) -> torch.device:
    """Return the device of a model's tensors."""
    tensor: Tensor = next(iter(model.state_dict().values()))
    return tensor.device


def quicker_device(members: Sequence[LanguageModel]) -> torch.device:
    """Return where these models generate faster: their own device, or the CPU for few values."""
    size = sum(value.nbytes for member in members for value in member.parameters())
    return torch.device("cpu") if size <= CPU_BYTES else device_of(members[0])


@torch.no_grad()
def generate_together(
    members: Sequence[LanguageModel],
    prompt_MBT: Tensor,
    length: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Continue prompts of several models by ancestral sampling.

    But for rounding, a model's text is the same whichever models are beside it.

    Args:
        members: of one class, shape and device; those of one `LanguageModel.stack_kind` are.
        prompt_MBT: token ids (M, B, T) int64, T >= 1.
        length: tokens to add to each text.
        generators: random numbers of each model, on any device.

    Returns:
        Ids (M, B, T + length) int64 on the device of the prompts.

    Raises:
        ValueError: the prompt is empty, or the models cannot run as one.
    """
    if prompt_MBT.shape[-1] == 0:
        raise ValueError("a prompt needs at least one token")
    ids_MBT = F.pad(prompt_MBT, (0, length))
    for numbers, predictor in type(members[0]).predictors(members):
        own = [generators[number] for number in numbers]
        context_size = members[0].context_size
        ids_MBT[numbers] = _continued(predictor, prompt_MBT[numbers], length, own, context_size)
    return ids_MBT


@torch.inference_mode()  # which costs less per operation than no_grad
def _continued(
    predictor: Predictor,
    prompt_MBT: Tensor,
    length: int,
    generators: Sequence[torch.Generator],
    context_size: int,
) -> Tensor:
    """Return what `generate_together` does, for models of one predictor."""
    shape = (length, prompt_MBT.shape[1], 1)
    uniforms = [torch.rand(shape, generator=own, device=own.device) for own in generators]
    uniform_NMB1 = torch.stack(uniforms, 1).to(predictor.device)
    ids_MBT = F.pad(prompt_MBT.to(predictor.device), (0, length))
    for end, uniform_MB1 in enumerate(uniform_NMB1, prompt_MBT.shape[2]):
        logits_MBV = predictor(ids_MBT[..., max(0, end - context_size) : end])
        ids_MBT[..., end : end + 1] = _drawn(logits_MBV, uniform_MB1)
    return ids_MBT.to(prompt_MBT.device)


def _drawn(logits_MBV: Tensor, uniform_MB1: Tensor) -> Tensor:
    """Return the first tokens (M, B, 1) at which the sum of probabilities exceeds a number."""
    sum_MBV = logits_MBV.softmax(-1).cumsum(-1)
    drawn_MB1 = torch.searchsorted(sum_MBV, uniform_MB1 * sum_MBV[..., -1:], right=True)
    return drawn_MB1.clamp_(max=sum_MBV.shape[-1] - 1)  # where logits are nan
