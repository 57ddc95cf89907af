"""Errors of claims that the trials cannot be held against."""

from __future__ import annotations

from analysis.errors import AnalysisError


class ClaimError(AnalysisError):
    """The trials cannot be held against a claim.

    Attributes:
        path: to the part of the claim that is to blame, such as ``("better", "variant")``.
    """

    def __init__(self, problem: str, *path: str | int) -> None:
        super().__init__(problem)
        self.path = path


class ConfoundedError(ClaimError):
    """The compared trials differ in more settings than the claim names."""
