"""Errors of verdicts and percentages."""

from __future__ import annotations

import math

import pytest

from analysis import AnalysisError, check_claims, load_trials
from analysis.text.shares import checked_error, percent


@pytest.mark.parametrize("error", [1e-6, 0.05, 0.4999])
def test_an_error_of_verdicts_is_below_a_half(error: float) -> None:
    assert checked_error(error) == error


@pytest.mark.parametrize("error", [0.0, -1.0, 9e-7, 0.5, 1.0, math.nan, math.inf])
def test_other_errors_are_refused(error: float) -> None:
    with pytest.raises(ValueError, match="from 1e-06 to below"):
        checked_error(error)
    with pytest.raises(AnalysisError, match="from 1e-06 to below"):
        check_claims(load_trials("docs/results/replicated/trials.csv"), anytime=True, error=error)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.9, "90"), (0.98, "98"), (59 / 60, "98.3"), (0.9998, "99.98"), (0.999998, "99.9998")],
)
def test_only_all_is_a_hundred_percent(share: float, text: str) -> None:
    assert percent(share) == text
    assert percent(1.0) == "100"
