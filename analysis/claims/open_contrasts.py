"""Which differences need more seeds for a claim to be decided."""

from __future__ import annotations

import numpy as np

from analysis.claims.claim import NEGATED
from analysis.claims.conclusions import Conclusion
from analysis.claims.contrast import Contrast


def open_contrasts(conclusion: Conclusion) -> list[Contrast]:
    """Return the differences whose next seed may decide a claim, the most useful first.

    For a claim of every cell these are the differences that do not support it yet, the weakest
    first: all have to, and one that never will refutes the claim. For a claim of "not in every
    cell" those that do not hold yet, the strongest counterexample first. Where the claim asks which
    level is best, it is about the level with the lowest loss so far.

    Returns:
        None of them if the claim is decided, or nothing was compared.
    """
    if conclusion.verdict != "UNDERPOWERED":
        return []
    claim, decision = conclusion.claim, conclusion.decision
    basis = conclusion.basis
    level = decision.procedure.error / conclusion.corrected_for
    is_open = decision.favour * decision.among >= level
    first = decision.against if claim.holds == NEGATED else -decision.favour
    usable = [i for i in np.flatnonzero(is_open).tolist() if basis[i].run_ids]
    return [basis[i] for i in sorted(usable, key=lambda i: (first[i], -_distance(conclusion, i)))]


def _distance(conclusion: Conclusion, index: int) -> float:
    """Return how far a mean difference is from supporting that the claim holds in its cell."""
    return conclusion.claim.distance(conclusion.basis[index])
