"""The looks that were taken at the verdicts of a sweep, which its run in MLflow keeps.

A verdict at a fixed number of seeds holds for one look. Whoever looks, adds seeds and looks again
is wrong more often, so each look is written down.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from analysis.trials.mlflow_store import opened
from analysis.trials.table import Trials

LOOKS = "looks"  # tag of a sweep's run: JSON, a list of looks
MOST_LOOKS = 50  # that are kept: a tag has at most 5,000 characters


@dataclass(frozen=True)
class Look:
    """A look at the verdicts of a sweep."""

    time: str  # UTC, such as 2026-11-27T06:18:00Z
    trials: int  # that were finished then


def looks_of(trials: Trials) -> list[Look]:
    """Return the looks at a sweep before this one, oldest first; none of a CSV file."""
    try:
        found = [Look(str(each["time"]), int(str(each["trials"]))) for each in _kept(trials)]
    except (KeyError, TypeError, ValueError):  # somebody has changed the tag
        return []
    return sorted(found, key=lambda look: look.time)


def looks_with_fewer(trials: Trials) -> list[Look]:
    """Return the looks before this one that saw fewer finished trials."""
    finished = len(trials.finished)
    return [look for look in looks_of(trials) if look.trials < finished]


def record_look(trials: Trials, tracking_uri: str) -> None:
    """Write down that the verdicts of a sweep are looked at now; nothing of a CSV file.

    Args:
        trials: of the sweep.
        tracking_uri: of the store that they are from.

    Raises:
        AnalysisError: the store does not answer.
    """
    if "run_id" not in trials.sweep:
        return
    look = Look(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), len(trials.finished))
    looks = [*looks_of(trials), look]
    kept = _distinct(looks)[:MOST_LOOKS]
    if kept == looks_of(trials):
        return
    with opened(tracking_uri, trials.experiment) as (client, _):
        text = json.dumps([asdict(each) for each in kept])
        client.set_tag(trials.sweep["run_id"], LOOKS, text)


def _distinct(looks: Sequence[Look]) -> list[Look]:
    """Return the first look at each number of trials: later ones saw nothing new."""
    return list({look.trials: look for look in reversed(looks)}.values())[::-1]


def _kept(trials: Trials) -> list[dict[str, object]]:
    kept = json.loads(trials.sweep.get(LOOKS, "[]"))
    return kept if isinstance(kept, list) else []
