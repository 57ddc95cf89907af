"""From a claim and the trials to contrasts: losses compared in pairs, cell by cell."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims import Claim, Selection, Value
from analysis.errors import AnalysisError, listed
from analysis.runs import Trials
from analysis.statistics import Floats, resolution

LOSS = "val_loss, where it counts"  # a column that no setting is called
BLOCK = "block_size"
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
    losses: Floats  # seeds x sides, the side that should have the lowest loss first
    weights: Floats  # of the sides, adding up to zero: 1, -1 for one minus the other
    lost: int  # seeds of which a trial is missing or did not finish
    run_ids: tuple[str, ...]
    across: bool = False  # both sides differ in block_size, which the claim is not about
    resolution: float = 0.0  # the losses are multiples of it, in nats: rounded, or of few bits

    @property
    def differences(self) -> Floats:
        """One for each seed."""
        return self.losses @ self.weights

    @property
    def rounding(self) -> float:
        """How far a difference may be off because its losses are rounded, in nats."""
        return self.resolution / 2 * float(np.abs(self.weights).sum())

    @property
    def levels(self) -> Floats | None:
        """Of a trend through more than two levels: seeds x levels, by which losses should fall."""
        return self.losses[:, ::-1] if self.losses.shape[1] > 2 else None

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
    table = trials.table.assign(**{LOSS: trials.comparable["val_loss"]})  # NaN for what is left out
    table = select(table[table["stage"] == ""], claim.where)
    between = _between_selections if claim.factor is None else _between_levels
    step = resolution(trials.comparable["val_loss"])
    return [replace(each, resolution=step) for each in between(claim, trials, table)]


def _check_names(claim: Claim, trials: Trials) -> None:
    for name in sorted(claim.names - set(trials.params)):
        raise AnalysisError(
            f"claim {claim.claim!r}: no trial of {trials.experiment!r} has a setting {name!r};"
            f" they have: {listed(trials.params)}"
        )
    for name, value in claim.values:
        if not trials.table[name].isin([_as_in(trials.table[name], value)]).any():
            known = sorted(map(str, trials.table[name].dropna().unique()))
            raise AnalysisError(
                f"claim {claim.claim!r}: no trial of {trials.experiment!r} has {name}={value};"
                f" there are: {listed(known)}"
            )


def _between_levels(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Levels of a factor against one another, all else fixed."""
    factor = claim.factor
    assert factor is not None
    if (claim.monotone or claim.trend) and not pd.api.types.is_numeric_dtype(table[factor]):
        raise AnalysisError(
            f"claim {claim.claim!r}: {factor} is not a number in every trial, so it has no"
            " direction; name its levels with `order`"
        )
    table = table[table[factor].notna()]
    within = claim.within
    if within is None:
        within = _varying(table, trials, {factor})
    cells: dict[str, dict[Any, BySeed]] = defaultdict(dict)
    for values, by_seed in _grouped(claim, trials, table, [*within, factor]):
        level = values.pop(factor)
        cells[_label(values)][level] = by_seed
    named = [_as_in(table[factor], level) for level in claim.named_levels]
    for cell, by_level in cells.items():
        levels = _order(claim, named, list(by_level))
        if claim.trend and len(levels) > 1:
            yield _slope(cell, {level: by_level[level] for level in levels})
        elif not claim.trend:
            for better, worse in _pairs(claim, levels):
                sides = (by_level.get(better, {}), by_level.get(worse, {}))
                yield _difference(cell, f"{better} - {worse}", *sides)


def _between_selections(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Each configuration of a selection against each of another that agrees in ``within``."""
    assert claim.better is not None
    assert claim.worse is not None
    better, worse = select(table, claim.better), select(table, claim.worse)
    vary, others_vary = _varying(better, trials, set()), _varying(worse, trials, set())
    within = claim.within
    if within is None:
        within = sorted({*vary} & {*others_vary} - {*claim.better, *claim.worse})
    what = f"{_values(claim.better)} - {_values(claim.worse)}"
    if shared := better.index.intersection(worse.index).size:
        raise AnalysisError(f"claim {claim.claim!r}: {shared} trials are both better and worse")
    known = [BLOCK] if BLOCK in trials.params else []
    others = _grouped(claim, trials, worse, [*within, *others_vary, *known])
    about_blocks = BLOCK in claim.better or BLOCK in claim.worse
    for values, by_seed in _grouped(claim, trials, better, [*within, *vary, *known]):
        for other, other_by_seed in others:
            if all(values[name] == other[name] for name in within):
                across = not about_blocks and values.get(BLOCK) != other.get(BLOCK)
                cell = _label({name: values[name] for name in vary})
                if others_vary:
                    against = _label({name: other[name] for name in others_vary})
                    cell = f"{cell} against {against}".strip()
                yield _difference(cell, what, by_seed, other_by_seed, across)


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
    first = table.iloc[np.unique(number, return_index=True)[1]]
    values = first[names].astype(object).where(first[names].notna(), None).to_dict("records")
    groups: list[tuple[dict[str, Any], BySeed]] = [
        ({str(name): value for name, value in each.items()}, {}) for each in values
    ]
    columns = (table[name].tolist() for name in ("seed", LOSS, "run_id"))
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


def _order(claim: Claim, named: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    """The levels, the one that should have the lowest loss first.

    A level that the claim names is among them, also where a cell lacks it.
    """
    if claim.order is not None or claim.equal is not None:
        return list(named)
    ascending = sorted(found)
    if claim.best is not None:
        return [*named, *(level for level in ascending if level not in named)]
    return ascending if "rising" in (claim.monotone, claim.trend) else ascending[::-1]


def _pairs(claim: Claim, levels: Sequence[Any]) -> list[tuple[Any, Any]]:
    if claim.best is not None:
        return [(levels[0], other) for other in levels[1:]]
    if claim.equal is not None:
        return list(itertools.combinations(levels, 2))
    return list(itertools.pairwise(levels))


def _difference(
    cell: str, what: str, better: BySeed, worse: BySeed, across: bool = False
) -> Contrast:
    losses, seeds, lost, run_ids = _whole([better, worse])
    return Contrast(cell, what, seeds, losses, np.array([1.0, -1.0]), lost, run_ids, across)


def _slope(cell: str, by_level: Mapping[Any, BySeed]) -> Contrast:
    """What a line through the levels, equally spaced, says of the first against the last."""
    losses, seeds, lost, run_ids = _whole(list(by_level.values()))
    first, *_, last = by_level
    position = np.arange(len(by_level)) - (len(by_level) - 1) / 2
    weights = -position * (len(by_level) - 1) / (position**2).sum()
    what = f"{first} - {last}, fitted"
    return Contrast(cell, what, seeds, losses, weights, lost, run_ids)


def _whole(sides: Sequence[BySeed]) -> tuple[Floats, tuple[int, ...], int, tuple[str, ...]]:
    """The losses (seeds x sides) of the seeds whose trials finished on all sides.

    With the seeds, how many were lost because a trial did not or is not there, and the runs.
    """
    planned = sorted(set[int]().union(*sides))
    missing = (math.nan, "")
    losses = np.array([[side.get(seed, missing)[0] for side in sides] for seed in planned])
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


def select(table: pd.DataFrame, selection: Mapping[str, Value | list[Value]]) -> pd.DataFrame:
    """The rows that have these values."""
    for name, value in selection.items():
        values = value if isinstance(value, list) else [value]
        table = table[table[name].isin([_as_in(table[name], one) for one in values])]
    return table


def _as_in(column: pd.Series[Any], value: Value) -> Value:
    """A value as the column has it: YAML's 1e-3, "8" and true are 0.001, 8 and "True"."""
    if not pd.api.types.is_numeric_dtype(column):
        return str(value)
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


def _values(selection: Selection) -> str:
    """The values of a selection, for people."""
    listed = [value if isinstance(value, list) else [value] for value in selection.values()]
    return " ".join("|".join(map(str, values)) for values in listed)
