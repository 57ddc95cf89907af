"""Verdicts that hold at any look, and the contrasts that are open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis.claims.conclusions import Conclusion, conclude
from analysis.claims.conclusions import check_claims as check_at_fixed_n
from analysis.claims.contrast import Contrast
from analysis.claims.contrasts import contrasts_of
from analysis.trials.confirmed import judged
from analysis.trials.table import Trials


def check_claims(trials: Trials, claims: Any, anytime: bool, error: float) -> list[Conclusion]:
    """A stand-in: the tests for a fixed number of seeds."""
    if not isinstance(claims, list):
        return check_at_fixed_n(trials, claims)
    found = []
    for claim in claims:
        contrasts = contrasts_of(claim, judged(trials))
        found.append(conclude(claim, [replace(each, lost=0) for each in contrasts]))
    return found


def open_contrasts(conclusion: Conclusion) -> list[Contrast]:
    """A stand-in: the contrasts of an open claim, those with the largest differences first."""
    if conclusion.verdict != "UNDERPOWERED":
        return []
    found = [each for each in conclusion.contrasts if len(each.seeds)]
    return sorted(found, key=lambda each: len(each.seeds))
