"""From a claim and the trials to contrasts: losses compared in pairs, cell by cell."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace

from analysis.claims.claim import Claim
from analysis.claims.claim_errors import ClaimError
from analysis.claims.configurations import (
    Configuration,
    Runs,
    configurations_of,
    select_configurations,
)
from analysis.claims.contrast import Contrast, resolution_of
from analysis.errors import listed
from analysis.trials.selection import as_in
from analysis.trials.table import Trials

MOST_CONTRASTS = 20_000

RunsOf = Callable[[Configuration], Runs]


def own_runs(configuration: Configuration) -> Runs:
    """Return the runs that a configuration was made with."""
    return configuration.runs


class Contrasts:
    """The contrasts of a claim, which can be measured again when further trials have ended.

    What is compared does not depend on losses, nor on seeds that the claim does not select.
    """

    def __init__(self, claim: Claim, trials: Trials, found: Sequence[Configuration]) -> None:
        """Find out what is compared, in the order of the cells.

        A planned trial that has no run is lost. If the plan is not known, every combination is
        taken to have been planned: all levels in each cell, and all seeds in each contrast.

        Args:
            claim: to be judged.
            trials: on which it is judged.
            found: all their configurations.

        Raises:
            ClaimError: it names a setting or a value that no trial has, its trials differ in more
                than it says, or there are two where only one can be.
        """
        _check_names(claim, trials)
        found = select_configurations(trials, found, claim.where)
        self._comparisons = list(itertools.islice(claim.compare(trials, found), MOST_CONTRASTS + 1))
        if len(self._comparisons) > MOST_CONTRASTS:
            raise ClaimError(f"more than {MOST_CONTRASTS:,} differences; select fewer by `where`")
        self._sides = claim.sides(trials, found)
        self._seen: list[Runs] = []  # at the last look
        self._contrasts: list[Contrast] = []

    def measured(self, runs_of: RunsOf) -> list[Contrast]:
        """Return the contrasts; the same list as before if no runs are other objects than then.

        Args:
            runs_of: returns the runs of a configuration.
        """
        sides = [[runs_of(each) for each in side] for side in self._sides]
        runs = [each for side in sides for each in side]
        if not self._contrasts or not _are_same(runs, self._seen):
            self._seen, coarsest = runs, resolution_of(sides)
            self._contrasts = [
                replace(each.measured([*map(runs_of, each.sides)]), resolution=coarsest)
                for each in self._comparisons
            ]
        return self._contrasts


def contrasts_of(claim: Claim, trials: Trials) -> list[Contrast]:
    """Return the contrasts of a claim, in the order of their cells; none if it selects no trials.

    Raises:
        ClaimError: the trials cannot be compared so.
    """
    return Contrasts(claim, trials, configurations_of(trials)).measured(own_runs)


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


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
