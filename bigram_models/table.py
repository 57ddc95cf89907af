"""Models that see one token: a table of logits. Shapes: V vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import Tensor

from bigram_models.base import LanguageModel
from bigram_models.generation import Predictor, TablePredictor, quicker_device


class TableModel(LanguageModel):
    """A model whose logits depend on the last token alone, so that a table holds all of them.

    The loss of a text is then exact from the counts of its pairs of neighbouring tokens.
    """

    @abstractmethod
    def table(self) -> Tensor:
        """Return the logits of the next token (V, V), a row for each token."""

    @classmethod
    def predictor(cls, members: Sequence[Self]) -> Predictor:
        return TablePredictor([member.table() for member in members], quicker_device(members))
