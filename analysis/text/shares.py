"""Shares: the error of verdicts, which people choose, and percentages, which they read."""

from __future__ import annotations

LEAST_ERROR = 1e-6  # with less, no number of seeds that anybody trains decides a claim
MOST_ERROR = 0.5


def checked_error(error: float) -> float:
    """Return the share of sweeps in which a verdict may be wrong.

    Raises:
        ValueError: it is below LEAST_ERROR, or not below MOST_ERROR, or no number.
    """
    if not LEAST_ERROR <= error < MOST_ERROR:
        raise ValueError(
            f"the error of verdicts is from {LEAST_ERROR:g} to below {MOST_ERROR:g}, such as 0.05,"
            f" not {error:g}"
        )
    return error


def percent(share: float) -> str:
    """Return a share in percent, with three digits, or so many that less than all is below 100."""
    digits = 3
    while share < 1 and float(text := f"{100 * share:.{digits}g}") >= 100:
        digits += 1
    return text if share < 1 else "100"
