"""Pairs of configurations that agree in all settings that a claim is not about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.claims.claim_errors import ClaimError, ConfoundedError
from analysis.claims.configurations import Configuration, label
from analysis.errors import listed
from analysis.trials.selection import Value

MOST_PAIRS = 10_000_000  # that are looked at for those that agree
LACKS = -1  # the code of a setting that it does not have

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Two configurations that are compared."""

    better: Configuration
    worse: Configuration
    differs: tuple[str, ...]  # the settings of `despite` in which they do


def pairs(
    better: Sequence[Configuration],
    worse: Sequence[Configuration],
    compared: Collection[str],
    despite: Collection[str],
) -> list[Pair]:
    """Pair each configuration with those of the other side that agree with it.

    Two configurations agree if they have the same value of each setting, except those in `compared`
    or `despite`, and those that no configuration with the compared values of the other has. Of
    several partners, those count that differ in the fewest settings of `despite`, from either side.

    Args:
        better: configurations that should have the lower loss.
        worse: the others.
        compared: settings in which the sides differ because the claim is about them.
        despite: settings in which they may differ too.

    Raises:
        ClaimError: there are too many to look at.
        ConfoundedError: a configuration agrees with none of the other side.
    """
    if not better or not worse:
        return []
    _check_number(better, worse)
    names = [name for name in better[0].settings if name not in compared]
    is_open = np.array([name in despite for name in names], dtype=bool)
    ours, theirs = _coded(better, worse, names, compared)
    wrong = _count(ours[:, ~is_open], theirs[:, ~is_open])
    for side, of_side in ("better", wrong), ("worse", wrong.T):
        if lonely := np.flatnonzero(of_side.min(axis=1)).tolist():
            at = lonely[0], int(of_side[lonely[0]].argmin())
            i, j = at if side == "better" else at[::-1]
            apart = np.flatnonzero(_apart(ours[i], theirs[j]) & ~is_open)
            differs = [names[k] for k in apart]
            raise _confounded(side, len(lonely), better[i], worse[j], differs)
    open_count = _count(ours[:, is_open], theirs[:, is_open])
    nearest = _nearest(np.where(wrong == 0, open_count, len(names) + 1))
    apart_at = ((i, j, np.flatnonzero(_apart(ours[i], theirs[j]))) for i, j in nearest)
    return [Pair(better[i], worse[j], tuple(names[k] for k in apart)) for i, j, apart in apart_at]


def _check_number(better: Sequence[Configuration], worse: Sequence[Configuration]) -> None:
    if len(better) * len(worse) > MOST_PAIRS:
        raise ClaimError(
            f"there are too many configurations to compare, {len(better):,} with {len(worse):,};"
            " select fewer by `where`",
            "better",
        )


def _nearest(distance: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the pairs (i, j) whose distance is the least of the row i or of the column j."""
    nearest = distance == distance.min(axis=1, keepdims=True)
    nearest |= distance == distance.min(axis=0, keepdims=True)
    return np.argwhere(nearest)


def _confounded(
    side: str, number: int, better: Configuration, worse: Configuration, differs: Sequence[str]
) -> ConfoundedError:
    lone, other = (better, worse) if side == "better" else (worse, better)
    there = "worse" if side == "better" else "better"
    lonely = "1 configuration has" if number == 1 else f"{number:,} configurations have"
    return ConfoundedError(
        f"{lonely} no partner in `{there}` that agrees in all else, such as"
        f" {label(lone.settings)}: the nearest {differ_in(differs, lone, other)}",
        side,
    )


def differ_in(names: Sequence[str], first: Configuration, second: Configuration) -> str:
    """Say in which settings two configurations differ that should agree, and the remedy."""
    values = [f"{name} ({first.settings[name]}, {second.settings[name]})" for name in names]
    return (
        f"differs in {listed(values)}; say `despite: [{', '.join(names)}]` if that may be, or"
        " select what agrees by `where`"
    )


def _coded(
    better: Sequence[Configuration],
    worse: Sequence[Configuration],
    names: Sequence[str],
    compared: Collection[str],
) -> tuple[Codes, Codes]:
    """Return codes (configurations x names) of both sides, which are equal where values are.

    LACKS stands for a setting that no configuration of a kind has.
    """
    known: Mapping[str, dict[Value | None, int]] = {name: {} for name in names}
    sides = []
    for side in (better, worse):
        kinds = [tuple(each.settings.get(name) for name in compared) for each in side]
        has = {
            (kind, name)
            for kind, each in zip(kinds, side, strict=True)
            for name in names
            if each.settings[name] is not None
        }
        codes = np.full((len(side), len(names)), LACKS)
        for i, (kind, each) in enumerate(zip(kinds, side, strict=True)):
            for k, name in enumerate(names):
                if (kind, name) in has:
                    codes[i, k] = known[name].setdefault(each.settings[name], len(known[name]))
        sides.append(codes)
    return sides[0], sides[1]


def _apart(ours: Codes, theirs: Codes) -> npt.NDArray[np.bool_]:
    apart: npt.NDArray[np.bool_] = (ours != theirs) & (ours != LACKS) & (theirs != LACKS)
    return apart


def _count(ours: Codes, theirs: Codes) -> npt.NDArray[np.int16]:
    """Count the settings in which each of our configurations differs from each of theirs."""
    found = np.zeros((len(ours), len(theirs)), np.int16)
    for our_codes, their_codes in zip(ours.T, theirs.T, strict=True):
        found += _apart(our_codes[:, None], their_codes)
    return found
