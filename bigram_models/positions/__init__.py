"""Positional encodings of `attention`, by the name that ``pe_type`` gives them.

base        what every encoding does
randn       a random table, added
sinpe       sinusoids, added
rope        pairs of channels, rotated
added       the encodings that add a fixed table
angles      the angles of sinusoids and rotations
stacked     encodings of several models as one formula
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from bigram_models.positions.added import AddedTable
from bigram_models.positions.base import PositionalEncoding, RotateAndAdd
from bigram_models.positions.randn import RandomTable
from bigram_models.positions.rope import Rotation
from bigram_models.positions.sinpe import Sinusoids
from bigram_models.positions.stacked import StackedEncodings

ENCODINGS: Mapping[str, type[PositionalEncoding]] = {
    "randn": RandomTable,
    "sinpe": Sinusoids,
    "rope": Rotation,
}

if TYPE_CHECKING:
    EncodingName = str  # mypy reads no Literal from a registry
else:
    EncodingName = Literal[tuple(ENCODINGS)]  # the sweep file's schema refuses other names

__all__ = [
    "ENCODINGS",
    "AddedTable",
    "EncodingName",
    "PositionalEncoding",
    "RotateAndAdd",
    "StackedEncodings",
]
