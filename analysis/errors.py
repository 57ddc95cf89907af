"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_SHOWN = 20


class AnalysisError(ValueError):
    """A request that cannot be answered; the message says why. The command exits with 2."""


def listed(names: Iterable[object], none: str = "none") -> str:
    """Return names for a message; of many, only the first."""
    words = list(map(str, names))
    more = f" and {len(words) - MOST_SHOWN:,} more" if len(words) > MOST_SHOWN else ""
    return ", ".join(words[:MOST_SHOWN]) + more or none


def nearest(name: str, known: Iterable[str], none: str = "none") -> str:
    """Return a hint for a name that does not exist: the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {listed(names, none)}"
