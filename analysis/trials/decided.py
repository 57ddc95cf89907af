"""Sweeps that trained seeds until their claims were decided, as their runs record it."""

from __future__ import annotations

import json

from analysis.trials.table import Trials

DECIDE = "decide"  # tag of a sweep's run: JSON, how it decides its claims


def decided_error(trials: Trials) -> float | None:
    """Return the error of the verdicts at which a sweep stops; None if it stops at none.

    Its numbers of seeds depend on its losses, so only tests that hold at any look can be right.
    """
    try:
        error = json.loads(trials.sweep.get(DECIDE, "null"))["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(error) if isinstance(error, int | float) and 0 < error < 1 else None
