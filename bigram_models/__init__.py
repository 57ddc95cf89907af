"""Language models: the variants, by the names that sweep files use. Needs torch only.

base               the base class of all variants
table              the base class of those that see one token
bigram             a table of logits
factorized         a table of low rank
attention          attention without projections
generation         texts of several models at once
attention_generation   the next tokens of attention
positions          the positional encodings of attention
count              counted pairs of tokens
stacked            several models as one
mixed_attention    attention models with different encodings as one
fused_attention    the same on a GPU, with fused kernels
causal_scores      attention scores and their gradient
kernels            parts of a training step, fused for a GPU
triton_kernels     the code of these
"""

from collections.abc import Mapping

from bigram_models.attention import AttentionBigram
from bigram_models.base import FittedModel, LanguageModel
from bigram_models.bigram import BigramTable
from bigram_models.count import CountBigram, conditional_entropy, count_pairs
from bigram_models.factorized import FactorizedBigram
from bigram_models.table import TableModel

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
    "TableModel",
    "conditional_entropy",
    "count_pairs",
]
