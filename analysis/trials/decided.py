"""Sweeps that trained seeds until their claims were decided, as their runs record it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.errors import AnalysisError
from analysis.text.csv_files import read_csv
from analysis.trials.mlflow_store import (
    CLAIMS_HISTORY,
    CLAIMS_IN_FORCE,
    DECIDE,
    LOOKS_TABLE,
    opened,
)
from analysis.trials.table import Trials

LOOK_COLUMNS = (
    *("look", "time", "finished", "trained_s", "claim_index", "claim", "verdict"),
    *("evidence", "evidence_against"),
)


@dataclass(frozen=True)
class KeptClaims:
    """Claims that a sweep was run with, which its run keeps."""

    file: str  # the artifact
    sha256: str  # of its bytes
    since: str  # when a run first had them, in UTC
    finished: int  # trials that were finished then
    looks: int  # that were taken before, at other claims


def decided_error(trials: Trials) -> float | None:
    """Return the error of the verdicts at which a sweep stops; None if it stops at none.

    Its numbers of seeds depend on its losses, so only tests that hold at any look can be right.
    """
    try:
        error = json.loads(trials.sweep.get(DECIDE, "null"))["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(error) if isinstance(error, int | float) and 0 < error < 1 else None


def kept_claims(trials: Trials) -> list[KeptClaims]:
    """Return the claims that a sweep was run with, oldest first; none if it decides none."""
    try:
        entries = json.loads(trials.sweep.get(CLAIMS_HISTORY, "[]"))
        return [KeptClaims(**{name: entry[name] for name in KEPT}) for entry in entries]
    except (ValueError, KeyError, TypeError):  # somebody has changed the tag
        return []


KEPT = tuple(KeptClaims.__dataclass_fields__)


@contextlib.contextmanager
def claims_of(trials: Trials, tracking_uri: str) -> Iterator[Path | None]:
    """Context manager: the file of the claims that a sweep was run with last; None if none.

    Raises:
        AnalysisError: the store does not answer.
    """
    kept = kept_claims(trials)
    if not kept:
        yield None
        return
    in_force = {each.sha256: each for each in kept}.get(
        trials.sweep.get(CLAIMS_IN_FORCE, ""), kept[-1]
    )
    run_id = trials.sweep["run_id"]
    with TemporaryDirectory() as folder:
        with opened(tracking_uri, trials.experiment) as (client, _):
            path = client.download_artifacts(run_id, in_force.file, folder)
        yield Path(path)


def load_looks(trials: Trials, tracking_uri: str) -> pd.DataFrame:
    """Return the looks at which a sweep judged its claims, as its run keeps them.

    Returns:
        A row for each look and claim; empty if there were none. Columns ``look`` (its number),
        ``time`` (UTC), ``finished`` (trials then), ``trained_s`` (seconds), ``claim_index`` (from
        1), ``claim``, ``verdict``, ``evidence`` and ``evidence_against`` (log10 of the e-values).

    Raises:
        AnalysisError: the store does not answer, or the file is damaged.
    """
    nothing = pd.DataFrame(columns=list(LOOK_COLUMNS))
    if not kept_claims(trials):
        return nothing
    run_id = trials.sweep["run_id"]
    with opened(tracking_uri, trials.experiment) as (client, _), TemporaryDirectory() as folder:
        if all(file.path != LOOKS_TABLE for file in client.list_artifacts(run_id)):
            return nothing
        table = read_csv(Path(client.download_artifacts(run_id, LOOKS_TABLE, folder)))
    whole = dict.fromkeys(["look", "finished", "claim_index"], int)
    numbers = dict.fromkeys(["trained_s", "evidence", "evidence_against"], float)
    try:
        return table[list(LOOK_COLUMNS)].astype({**whole, **numbers})
    except (KeyError, ValueError):
        raise AnalysisError(f"{LOOKS_TABLE} of run {run_id} is damaged") from None


def history_in_words(trials: Trials, claims: Path) -> str:
    """Return when a sweep was given a file of claims; empty if it decides none.

    Args:
        trials: of the sweep.
        claims: the file, which can be read.
    """
    kept = kept_claims(trials)
    if not kept:
        return ""
    sha256 = hashlib.sha256(claims.read_bytes()).hexdigest()
    found = next((each for each in kept if each.sha256 == sha256), None)
    if found is None:
        return (
            "Warning: the sweep was not run with these claims, so they were written after looking:"
            " its verdicts hold for claims that were stated before."
        )
    stated = f"These claims (sha256 {sha256[:12]}) were stated on {found.since}"
    if found == kept[0] and not found.finished and not found.looks:
        return f"{stated}, before the first trial."
    if not found.finished:  # as far as an outbox that was lost has known
        return f"Warning: {stated[0].lower()}{stated[1:]}, after others of {kept[0].since}."
    looks = "1 look was" if found.looks == 1 else f"{found.looks} looks were"
    return (
        f"Warning: {stated[0].lower()}{stated[1:]}, when {found.finished} trials were finished"
        f" and {looks} taken: verdicts hold for claims that were stated before."
    )
