"""Whether the differences of claims would hold on other text, in words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.conclusions import Conclusion
from analysis.results.text_blocks import (
    Difference,
    text_differences,
    text_interval_in_words,
)
from analysis.trials.table import Trials


def text_sentences(
    conclusions: Sequence[Conclusion], trials: Trials, tracking_uri: str
) -> list[str]:
    """Return a sentence on the weakest difference of each claim; empty where nothing is known.

    Args:
        conclusions: on claims about the trials.
        trials: from a store.
        tracking_uri: of the store, which has the losses by block as artifacts.

    Raises:
        AnalysisError: the store does not answer, or an artifact is damaged.
    """
    found = text_differences(trials, [*map(_weakest, conclusions)], tracking_uri)
    return [*map(text_interval_in_words, found)]


def _weakest(conclusion: Conclusion) -> Difference:
    weakest = conclusion.weakest
    if weakest is None or conclusion.claim.holds == "on average":  # a mean of many differences
        return Difference((), (1, -1), conclusion.confidence)
    return Difference(weakest.run_ids, weakest.weights, conclusion.confidence)
