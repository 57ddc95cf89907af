"""What a model is: the variants, by the name that a sweep file gives them. Needs torch only."""

from collections.abc import Mapping

from bigram_models.attention import AttentionBigram
from bigram_models.base import FittedModel, LanguageModel
from bigram_models.bigram import BigramTable
from bigram_models.count import CountBigram, conditional_entropy, count_pairs
from bigram_models.factorized import FactorizedBigram

VARIANTS: Mapping[str, type[LanguageModel]] = {
    "bigram": BigramTable,
    "factorized": FactorizedBigram,
    "attention": AttentionBigram,
    "count": CountBigram,
}

__all__ = [
    "VARIANTS",
    "AttentionBigram",
    "BigramTable",
    "CountBigram",
    "FactorizedBigram",
    "FittedModel",
    "LanguageModel",
    "conditional_entropy",
    "count_pairs",
]
