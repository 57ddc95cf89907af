"""The base class of all variants. Shapes: B batch, T time, V vocabulary, N tokens of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bigram_models.generation import ForwardPredictor, Predictor, generate_together
from bigram_models.stacked import StackedModel


class LanguageModel(nn.Module, ABC):
    """Predicts the next token from the tokens so far.

    A variant is a subclass with

    * ``Config``: a frozen dataclass of its settings, whose ``__post_init__`` raises `ValueError`
      for impossible values; and
    * ``__init__(config, vocab_size, block_size, generator)``: every random initial value is drawn
      from ``generator``, never from the global state.
    """

    Config: ClassVar[type[Any]]  # Any: each variant has its own dataclass with its own fields

    def __init__(self, vocab_size: int, context_size: int) -> None:
        """Set the number of tokens V and the number of past tokens that the model can use."""
        super().__init__()
        self.vocab_size = vocab_size
        self.context_size = context_size

    @abstractmethod
    def forward(self, ids_BT: Tensor) -> Tensor:
        """Map token ids (B, T) int64 to next-token logits (B, T, V) float32, T <= context_size."""

    @classmethod
    def stack_kind(cls, config: object) -> Hashable:
        """Return a value that is equal for settings whose models `stacked` can run as one.

        By default only equal settings are stacked.
        """
        return repr(config)

    @classmethod
    def stacked(cls, members: Sequence[Self]) -> StackedModel:
        """Return one model of several of equal `stack_kind` and shape, which share its tensors."""
        return StackedModel(members)

    def next_logits(self, ids_BT: Tensor) -> Tensor:
        """Return the logits after the last token, (B, V): `forward` computes all (B, T, V)."""
        logits_BTV: Tensor = self(ids_BT)
        return logits_BTV[:, -1]

    @classmethod
    def predictors(cls, members: Sequence[Self]) -> list[tuple[Sequence[int], Predictor]]:
        """Return what computes the next tokens of several models, as they are now.

        Args:
            members: of equal `stack_kind` and shape.

        Returns:
            Predictors, each with the numbers of its models among all; each model is in one.
        """
        return [(range(len(members)), ForwardPredictor(members))]

    def generate(self, prompt_BT: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """Continue each prompt by ancestral sampling.

        Args:
            prompt_BT: token ids (B, T) int64, T >= 1, on the model's device.
            length: tokens to add to each row.
            generator: random numbers for sampling, on any device.

        Returns:
            Ids (B, T + length) int64: the prompts and their continuations.

        Raises:
            ValueError: the prompt is empty.
        """
        return generate_together([self], prompt_BT[None], length, [generator])[0]


class FittedModel(LanguageModel):
    """A model that is computed from the text in one pass, not trained by gradients."""

    @abstractmethod
    def fit(self, tokens_N: Tensor) -> None:
        """Fit to the token ids (N,) of the training split, N >= 2."""


def linear(in_features: int, out_features: int, generator: torch.Generator) -> nn.Linear:
    """Return `nn.Linear` with PyTorch's initial values, U(-1/sqrt(in), 1/sqrt(in)), seeded."""
    layer = nn.Linear(in_features, out_features, device="meta")  # draws nothing
    # Not by nn.utils.skip_init, which imports sympy: half a second, once in each process.
    layer.weight = nn.Parameter(torch.empty(out_features, in_features))
    layer.bias = nn.Parameter(torch.empty(out_features))
    bound = in_features**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def normal_parameter(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    """Return a trainable (rows, columns) float32 table drawn from N(0, 1)."""
    return nn.Parameter(torch.randn(rows, columns, generator=generator))


def require_positive(**settings: int) -> None:
    """Raise `ValueError` for the first setting that is not at least 1."""
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
