"""Errors of claims that cannot be tested on the trials."""

from __future__ import annotations

from analysis.errors import AnalysisError


class ClaimError(AnalysisError):
    """A claim cannot be tested on the trials.

    Attributes:
        path: to the wrong part of the claim, such as ``("better", "variant")``.
    """

    def __init__(self, problem: str, *path: str | int) -> None:
        super().__init__(problem)
        self.path = path


class ConfoundedError(ClaimError):
    """The compared trials differ in more settings than the claim names."""
