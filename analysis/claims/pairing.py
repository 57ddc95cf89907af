"""Which trials are compared with which: those that agree in all that a claim is not about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.claims.claim import Claim, ClaimError, ConfoundedError
from analysis.errors import listed
from analysis.trials.table import Trials

LOSS = "val_loss, where it counts"  # a column that no setting is called
PROVENANCE = ("corpus_digest", "code_version", "result_version")
MOST_PAIRS = 10_000_000  # that are looked at for those that agree
LACKS = -1  # the code of a setting that it does not have

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """A trial."""

    run_id: str
    loss: float  # nats per character; NaN where it does not count
    provenance: tuple[str, ...]  # the values of PROVENANCE, empty where they are not known


@dataclass(frozen=True)
class Configuration:
    """The trials that differ in their seed alone."""

    settings: Mapping[str, Any]  # that differ anywhere in the sweep; None for a missing one
    runs: Mapping[int, Run]  # by seed


@dataclass(frozen=True)
class Pair:
    """Two configurations that are compared."""

    better: Configuration
    worse: Configuration
    differs: tuple[str, ...]  # the settings of `despite` in which they do


def configurations(trials: Trials, table: pd.DataFrame) -> list[Configuration]:
    """The configurations of some trials, in the order of their settings.

    Raises:
        ClaimError: a configuration has two trials with one seed.
    """
    if table.empty:
        return []
    names = list(trials.settings)
    number = np.zeros(len(table), dtype=int)
    if names:
        number = table.groupby(names, dropna=False).ngroup().to_numpy()
    first = table.iloc[np.unique(number, return_index=True)[1]]
    values = first[names].astype(object).where(first[names].notna(), None).to_dict("records")
    runs: list[dict[int, Run]] = [{} for _ in values]
    for which, seed, run in zip(number, table["seed"], _runs(table), strict=True):
        if seed in runs[which]:
            raise ClaimError(_twice(values[which], seed, runs[which][seed], run))
        runs[which][seed] = run
    settings = [{str(name): value for name, value in each.items()} for each in values]
    return [Configuration(*both) for both in zip(settings, runs, strict=True)]


def _runs(table: pd.DataFrame) -> list[Run]:
    known = table.reindex(columns=list(PROVENANCE)).astype(object)
    provenance = map(tuple, known.where(known.notna(), "").astype(str).to_numpy())
    return [Run(*each) for each in zip(table["run_id"], table[LOSS], provenance, strict=True)]


def _twice(settings: Mapping[Any, Any], seed: int, one: Run, other: Run) -> str:
    both = zip(PROVENANCE, one.provenance, other.provenance, strict=True)
    differ = [name for name, ours, theirs in both if ours != theirs]
    return (
        f"several trials with seed {seed} have {label(settings) or 'the same settings'}; they"
        f" differ in {', '.join(differ) or 'nothing'}: only one of them can count"
    )


def pairs(
    claim: Claim, better: Sequence[Configuration], worse: Sequence[Configuration]
) -> list[Pair]:
    """Each configuration with those of the other side that agree with it.

    They have the same value of each setting, but of those that the claim compares or names in
    `despite`, and of those that only one of the two has: no configuration of its kind has it, that
    is with its values of the compared settings. Of several that agree so, those count that differ
    in the fewest settings of `despite`, as seen from either side.

    Raises:
        ClaimError: there are too many to look at.
        ConfoundedError: a configuration agrees with none of the other side.
    """
    if not better or not worse:
        return []
    if len(better) * len(worse) > MOST_PAIRS:
        raise ClaimError(
            f"there are too many configurations to compare, {len(better):,} with {len(worse):,};"
            " select fewer by `where`",
            "better",
        )
    names = [name for name in better[0].settings if name not in claim.compared]
    is_open = np.array([name in claim.despite for name in names], dtype=bool)
    ours, theirs = _coded(better, worse, names, claim.compared)
    wrong = _count(ours[:, ~is_open], theirs[:, ~is_open])
    for side, of_side in ("better", wrong), ("worse", wrong.T):
        if lonely := np.flatnonzero(of_side.min(axis=1)).tolist():
            at = lonely[0], int(of_side[lonely[0]].argmin())
            i, j = at if side == "better" else at[::-1]
            differs = [names[k] for k in np.flatnonzero(_apart(ours[i], theirs[j]) & ~is_open)]
            raise _confounded(side, len(lonely), better[i], worse[j], differs)
    distance = np.where(wrong == 0, _count(ours[:, is_open], theirs[:, is_open]), len(names) + 1)
    nearest = distance == distance.min(axis=1, keepdims=True)
    nearest |= distance == distance.min(axis=0, keepdims=True)
    found = []
    for i, j in np.argwhere(nearest):
        apart = np.flatnonzero(_apart(ours[i], theirs[j]))
        found.append(Pair(better[i], worse[j], tuple(names[k] for k in apart)))
    return found


def _confounded(
    side: str, number: int, better: Configuration, worse: Configuration, differs: Sequence[str]
) -> ConfoundedError:
    one, other = (better, worse) if side == "better" else (worse, better)
    there = "worse" if side == "better" else "better"
    lonely = "1 configuration has" if number == 1 else f"{number:,} configurations have"
    return ConfoundedError(
        f"{lonely} no partner in `{there}` that agrees in all else, such as"
        f" {label(one.settings)}: the nearest {differ_in(differs, one, other)}",
        side,
    )


def differ_in(names: Sequence[str], one: Configuration, other: Configuration) -> str:
    """In which settings two configurations differ that should agree, and the remedy."""
    values = [f"{name} ({one.settings[name]}, {other.settings[name]})" for name in names]
    return (
        f"differs in {listed(values)}; say `despite: [{', '.join(names)}]` if that may be, or"
        " select what agrees by `where`"
    )


def label(settings: Mapping[Any, Any]) -> str:
    """The values of settings that there are, such as "n_embd=64 block_size=8"."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _coded(
    better: Sequence[Configuration],
    worse: Sequence[Configuration],
    names: Sequence[str],
    compared: Collection[str],
) -> tuple[Codes, Codes]:
    """Numbers (configurations x names) that are equal where values are, of both sides.

    LACKS stands for a setting that no configuration of a kind has.
    """
    known: Mapping[str, dict[Any, int]] = {name: {} for name in names}
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
    """In how many settings each of the one side differs from each of the other."""
    found = np.zeros((len(ours), len(theirs)), np.int16)
    for one, other in zip(ours.T, theirs.T, strict=True):
        found += _apart(one[:, None], other)
    return found
