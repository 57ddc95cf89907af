"""What `sweeps plan` says of the claims that a sweep decides."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sweeps.deciding.claims import SweepClaims
from sweeps.deciding.decider import Decider
from sweeps.planning.plan import Plan
from sweeps.records.outbox_reader import opened_reader
from sweeps.search.queue import Queue
from trainables.errors import UserError


@dataclass(frozen=True)
class Outlook:
    """How far a sweep has decided its claims, and how many trials it will still take."""

    verdicts: str  # such as "7 claims: 4 decided, 3 open"
    further: int  # trials, if means and spreads stay as they are
    sweeps: tuple[str, ...] = ()  # other ones, if it is by their trials


def outlook(plan: Plan, claims: SweepClaims, path: Path) -> Outlook | None:
    """Return how far a sweep has decided its claims, by the trials that its outbox has.

    Args:
        plan: of the sweep.
        claims: that it decides.
        path: of its outbox, which need not be there.

    Returns:
        None if no trial is finished, or if a search has yet to find what the claims compare.

    Raises:
        UserError: the claims cannot be judged by these trials.
    """
    if plan.studies:
        return None
    decider = Decider(plan, claims.judge)
    try:
        with opened_reader(path) as outbox:
            records = {r.key: r for r in (*outbox.removed_trials(), *outbox.trials())}
            decider.resume(records, outbox.history, Queue())
    except (sqlite3.Error, ValueError):
        return None
    further = decider.expected_trials
    if decider.problem:
        raise UserError(f"the claims cannot be judged: {decider.problem}")
    return None if further is None else Outlook(decider.verdicts_in_words, further)
