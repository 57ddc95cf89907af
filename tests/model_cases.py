"""The models that contract tests run on: each variant, and attention with each encoding.

A new variant gets a line in SETTINGS; a new positional encoding is read from its registry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bigram_models import VARIANTS, FittedModel
from bigram_models.positions import ENCODINGS

WIDTHS = (4, 16)  # below and above the vocabularies of the tests
SETTINGS: Mapping[str, Sequence[dict[str, Any]]] = {
    "bigram": [{}],
    "factorized": [{"n_embd": n_embd} for n_embd in WIDTHS],
    "attention": [
        {"pe_type": pe_type, "n_embd": n_embd} for pe_type in ENCODINGS for n_embd in WIDTHS
    ],
    "count": [{"smoothing": 0.5}, {"smoothing": 1.0}],
}
TRAINED = [name for name, variant in VARIANTS.items() if not issubclass(variant, FittedModel)]


def models(variants: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(variant, settings) for variant in variants for settings in SETTINGS[variant]]


def accepts(pe_type: str, n_embd: int) -> bool:
    """Return whether embeddings of this width can have the encoding."""
    try:
        ENCODINGS[pe_type].check_width(n_embd)
    except ValueError:
        return False
    return True


NAMES = ("variant", "settings")
every_model = pytest.mark.parametrize(NAMES, models(list(VARIANTS)), ids=str)
every_trained_model = pytest.mark.parametrize(NAMES, models(TRAINED), ids=str)
one_of_each_variant = pytest.mark.parametrize(
    NAMES, [models([variant])[0] for variant in VARIANTS], ids=str
)
every_encoding = pytest.mark.parametrize("pe_type", ENCODINGS)
