"""From a claim and the trials to contrasts: losses compared in pairs, cell by cell."""

from __future__ import annotations

import itertools

from analysis.claims.claim import Claim
from analysis.claims.claim_errors import ClaimError
from analysis.claims.contrast import Contrast
from analysis.claims.pairing import LOSS, PROVENANCE
from analysis.errors import listed
from analysis.trials.selection import as_in, select
from analysis.trials.table import Trials

MOST_CONTRASTS = 20_000
COLUMNS = ("seed", "stage", "run_id")  # of trials, besides their settings


def contrasts_of(claim: Claim, trials: Trials) -> list[Contrast]:
    """Return the contrasts of a claim, in the order of their cells; none if it selects no trials.

    A planned trial that has no run is lost. If the plan is not known, every combination is taken to
    have been planned: all levels in each cell, and all seeds in each contrast.

    Raises:
        ClaimError: it names a setting or a value that no trial has, its trials differ in more than
            it says, or there are two where only one can be.
    """
    _check_names(claim, trials)
    # Few columns: pandas takes its time for each, whenever it selects rows.
    needed = {*trials.settings, *claim.names, *COLUMNS, *PROVENANCE}
    table = trials.table[[name for name in trials.table if name in needed]]
    table = table.assign(**{LOSS: trials.comparable["val_loss"]})  # NaN for what is left out
    table = select(table[table["stage"] == ""], claim.where)
    found = list(itertools.islice(claim.contrasts(trials, table), MOST_CONTRASTS + 1))
    if len(found) > MOST_CONTRASTS:
        raise ClaimError(f"more than {MOST_CONTRASTS:,} differences; select fewer by `where`")
    return found


def _check_names(claim: Claim, trials: Trials) -> None:
    for name, path in claim.names.items():
        if name not in trials.params:
            raise ClaimError(no_setting(name, trials), *path)
    for path, name, value in claim.values:
        if not trials.table[name].isin([as_in(trials.table[name], value)]).any():
            known = sorted(map(str, trials.table[name].dropna().unique()))
            raise ClaimError(
                f"no trial of {trials.experiment!r} has {name}={value}; there are: {listed(known)}",
                *path,
            )


def no_setting(name: str, trials: Trials) -> str:
    """Return the message for a claim that names a setting which no trial has."""
    return (
        f"no trial of {trials.experiment!r} has a setting {name!r}; they have:"
        f" {listed(trials.params)}"
    )
