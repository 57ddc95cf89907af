"""Whether the differences of claims would hold on other text, in words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.conclusions import Conclusion
from analysis.results.text_blocks import text_difference, text_interval_in_words
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
    return [_sentence(conclusion, trials, tracking_uri) for conclusion in conclusions]


def _sentence(conclusion: Conclusion, trials: Trials, tracking_uri: str) -> str:
    weakest = conclusion.weakest
    if weakest is None or conclusion.claim.holds == "on average":  # a mean of many differences
        return ""
    found = text_difference(
        trials, weakest.run_ids, weakest.weights, tracking_uri, conclusion.confidence
    )
    return text_interval_in_words(found)
