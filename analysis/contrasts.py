"""From a claim and the trials to contrasts: losses compared in pairs, cell by cell."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.claims import Claim, Selection
from analysis.errors import AnalysisError
from analysis.runs import Trials

Floats = npt.NDArray[np.float64]
BySeed = dict[int, tuple[float, str]]  # loss (NaN if it does not count) and run of a trial


@dataclass(frozen=True)
class Contrast:
    """Differences by seed, in nats per character; a negative one bears the claim out.

    Both trials of a difference have the same seed, so they drew the same batches where their
    block_size agrees, and started from the same values where their shapes do.
    """

    cell: str  # what is held fixed, such as "n_embd=64 block_size=8"
    what: str  # which minus which, such as "rope - sinpe"
    seeds: tuple[int, ...]
    differences: Floats  # one for each seed
    lost: int  # pairs that were to be, of which a trial did not finish
    run_ids: tuple[str, ...]
    levels: Floats | None = None  # of a trend: losses, seeds x levels, by which it should fall

    @property
    def mean(self) -> float:
        """NaN where no pair is finished."""
        return float(self.differences.mean()) if len(self.differences) else float("nan")


def contrasts_of(claim: Claim, trials: Trials) -> list[Contrast]:
    """The contrasts of a claim, in the order of their cells; empty where no trials are concerned.

    Raises:
        AnalysisError: it names a setting or a value that no trial has, or leaves a setting open.
    """
    _check_names(claim, trials)
    table = trials.table.copy()
    table["loss"] = trials.comparable["val_loss"]  # NaN for what is left out
    table = _select(table, claim.where)
    if claim.factor is None:
        return list(_between_selections(claim, trials, table))
    return list(_between_levels(claim, trials, table))


def _check_names(claim: Claim, trials: Trials) -> None:
    for name in sorted(claim.names - set(trials.params)):
        raise AnalysisError(
            f"claim {claim.claim!r}: no trial of {trials.experiment!r} has a setting {name!r};"
            f" they have: {', '.join(trials.params)}"
        )
    for name, value in claim.values:
        if not trials.table[name].isin([value]).any():
            known = sorted(map(str, trials.table[name].dropna().unique()))
            raise AnalysisError(
                f"claim {claim.claim!r}: no trial of {trials.experiment!r} has {name}={value};"
                f" there are: {', '.join(known)}"
            )


def _between_levels(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Levels of a factor against one another, all else fixed."""
    factor = claim.factor
    assert factor is not None
    table = table[table[factor].notna()]
    within = claim.within
    if within is None:
        within = _varying(table, trials, {factor})
    cells: dict[str, dict[Any, BySeed]] = defaultdict(dict)
    for values, by_seed in _grouped(claim, trials, table, [*within, factor]):
        level = values.pop(factor)
        cells[_label(values)][level] = by_seed
    for cell, by_level in cells.items():
        levels = [level for level in _order(claim, list(by_level)) if level in by_level]
        if claim.trend and len(levels) > 1:
            yield _slope(cell, {level: by_level[level] for level in levels})
        elif not claim.trend:
            for better, worse in _pairs(claim, levels):
                what = f"{better} - {worse}"
                yield _difference(cell, what, by_level[better], by_level[worse])


def _between_selections(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Each configuration of a selection against each of another that agrees in ``within``."""
    assert claim.better is not None
    assert claim.worse is not None
    better, worse = _select(table, claim.better), _select(table, claim.worse)
    vary, others_vary = _varying(better, trials, set()), _varying(worse, trials, set())
    within = claim.within
    if within is None:
        within = sorted({*vary} & {*others_vary} - {*claim.better, *claim.worse})
    what = f"{_values(claim.better)} - {_values(claim.worse)}"
    others = _grouped(claim, trials, worse, [*within, *others_vary])
    for values, by_seed in _grouped(claim, trials, better, [*within, *vary]):
        for other, other_by_seed in others:
            if all(values[name] == other[name] for name in within):
                cell = _label({name: values[name] for name in vary})
                if others_vary:
                    against = _label({name: other[name] for name in others_vary})
                    cell = f"{cell} against {against}".strip()
                yield _difference(cell, what, by_seed, other_by_seed)


def _grouped(
    claim: Claim, trials: Trials, table: pd.DataFrame, names: Sequence[str]
) -> list[tuple[dict[str, Any], BySeed]]:
    """The trials that agree in some settings, with their values (None for a missing one)."""
    if table.empty:
        return []
    names = list(dict.fromkeys(names))
    number = np.zeros(len(table), dtype=int)
    if names:
        number = table.groupby(names, dropna=False).ngroup().to_numpy()
    first = table.assign(number=number).drop_duplicates("number").sort_values("number")
    values = first[names].astype(object).where(first[names].notna(), None).to_dict("records")
    groups: list[tuple[dict[str, Any], BySeed]] = [
        ({str(name): value for name, value in each.items()}, {}) for each in values
    ]
    columns = (table[name].tolist() for name in ("seed", "loss", "run_id"))
    for which, seed, loss, run_id in zip(number, *columns, strict=True):
        settings, by_seed = groups[which]
        if seed in by_seed:
            differ = [name for name in _varying(table, trials, set()) if name not in names]
            raise AnalysisError(
                f"claim {claim.claim!r}: several trials with seed {seed} have"
                f" {_label(settings) or 'the same settings'}; they differ in"
                f" {', '.join(differ) or 'nothing'}: put that into `within`, or fix it in `where`"
            )
        by_seed[seed] = (loss, run_id)
    return groups


def _order(claim: Claim, levels: Sequence[Any]) -> list[Any]:
    """The levels, the one that should have the lowest loss first."""
    given = claim.order or claim.equal
    if given is not None:
        return list(given)
    ascending = sorted(levels)
    if claim.best is not None:
        return [claim.best, *(level for level in ascending if level != claim.best)]
    return ascending if "rising" in (claim.monotone, claim.trend) else ascending[::-1]


def _pairs(claim: Claim, levels: Sequence[Any]) -> list[tuple[Any, Any]]:
    if claim.best is not None:
        return [(claim.best, other) for other in levels[1:]] if claim.best in levels else []
    if claim.equal is not None:
        return list(itertools.combinations(levels, 2))
    return list(itertools.pairwise(levels))


def _difference(cell: str, what: str, better: BySeed, worse: BySeed) -> Contrast:
    losses, seeds, lost, run_ids = _whole([better, worse])
    return Contrast(cell, what, seeds, losses[:, 0] - losses[:, 1], lost, run_ids)


def _slope(cell: str, by_level: Mapping[Any, BySeed]) -> Contrast:
    """What a line through the levels, equally spaced, says of the first against the last."""
    losses, seeds, lost, run_ids = _whole(list(by_level.values()))
    first, *_, last = by_level
    position = np.arange(len(by_level)) - (len(by_level) - 1) / 2
    weights = -position * (len(by_level) - 1) / (position**2).sum()
    what = f"{first} - {last}, fitted"
    return Contrast(cell, what, seeds, losses @ weights, lost, run_ids, losses[:, ::-1])


def _whole(sides: Sequence[BySeed]) -> tuple[Floats, tuple[int, ...], int, tuple[str, ...]]:
    """The losses (seeds x sides) of the seeds that all sides have and that all finished.

    With the seeds, how many were lost because a trial did not finish, and the runs.
    """
    planned = sorted(set.intersection(*(set(side) for side in sides)))
    losses = np.array([[side[seed][0] for side in sides] for seed in planned], dtype=float)
    losses = losses.reshape(len(planned), len(sides))
    whole = np.isfinite(losses).all(axis=1)
    seeds = tuple(int(seed) for seed, is_whole in zip(planned, whole, strict=True) if is_whole)
    run_ids = tuple(side[seed][1] for seed in seeds for side in sides)
    return losses[whole], seeds, int((~whole).sum()), run_ids


def _varying(table: pd.DataFrame, trials: Trials, but: set[str]) -> list[str]:
    return [
        name
        for name in trials.settings
        if name not in but and table[name].nunique(dropna=False) > 1
    ]


def _label(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _select(table: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    for name, value in selection.items():
        table = table[table[name].isin(value if isinstance(value, list) else [value])]
    return table


def _values(selection: Selection) -> str:
    """The values of a selection, for people."""
    listed = [value if isinstance(value, list) else [value] for value in selection.values()]
    return " ".join("|".join(map(str, values)) for values in listed)
