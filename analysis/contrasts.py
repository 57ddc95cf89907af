"""From a claim and the trials to contrasts: losses compared in pairs, cell by cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.claims import Claim, Selection
from analysis.errors import AnalysisError
from analysis.runs import Trials

Floats = npt.NDArray[np.float64]


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
    open_settings = _varying(table, trials, {factor})
    within = open_settings if claim.within is None else claim.within
    for cell, rows in _cells(table, within):
        if rows.duplicated([factor, "seed"]).any():
            differ = [name for name in open_settings if name not in within]
            raise AnalysisError(
                f"claim {claim.claim!r}: several trials with the same seed have the same {factor}"
                f" in the cell {cell or 'of all trials'}; they differ in {', '.join(differ)}:"
                " put that into `within`, or fix it in `where`"
            )
        losses = rows.pivot(index="seed", columns=factor, values="loss").sort_index()
        ids = rows.pivot(index="seed", columns=factor, values="run_id").loc[losses.index]
        levels = [level for level in _order(claim, losses.columns) if level in losses]
        if claim.trend and len(levels) > 1:
            yield _slope(cell, losses[levels], ids[levels])
        elif not claim.trend:
            for better, worse in _pairs(claim, levels):
                pair = losses[[better, worse]].set_axis(["better", "worse"], axis="columns")
                runs = ids[[better, worse]].set_axis(["better", "worse"], axis="columns")
                yield _difference(cell, f"{better} - {worse}", pair, runs)


def _between_selections(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Each configuration of a selection against each of another that agrees in ``within``."""
    assert claim.better is not None
    assert claim.worse is not None
    better, worse = _select(table, claim.better), _select(table, claim.worse)
    within = claim.within
    if within is None:
        in_both = set(_varying(better, trials, set())) & set(_varying(worse, trials, set()))
        within = sorted(in_both - {*claim.better, *claim.worse})
    label = f"{_label(claim.better)} - {_label(claim.worse)}"
    others = list(_configurations(worse, trials, within))
    for cell, shared, rows in _configurations(better, trials, within):
        for other, other_shared, other_rows in others:
            if shared == other_shared:
                both = rows.merge(other_rows, on="seed", suffixes=("", "_worse"))
                both = both.set_index("seed").sort_index()
                pair = both[["loss", "loss_worse"]].set_axis(["better", "worse"], axis="columns")
                runs = both[["run_id", "run_id_worse"]].set_axis(pair.columns, axis="columns")
                against = f"against {other}" if len(others) > 1 and other else ""
                yield _difference(f"{cell} {against}".strip(), label, pair, runs)


def _configurations(
    rows: pd.DataFrame, trials: Trials, within: Sequence[str]
) -> Iterator[tuple[str, tuple[Any, ...], pd.DataFrame]]:
    """Each configuration with its label, its values of ``within``, and its trials."""
    for label, group in _cells(rows, _varying(rows, trials, set())):
        yield label, tuple(str(group[name].iloc[0]) for name in within), group


def _cells(table: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The trials that agree in these settings, with a label."""
    if table.empty:
        return
    groups = table.groupby(list(names), dropna=False) if names else [((), table)]
    for _, rows in groups:
        values = [(name, rows[name].iloc[0]) for name in names]
        yield " ".join(f"{name}={value}" for name, value in values if pd.notna(value)), rows


def _varying(table: pd.DataFrame, trials: Trials, but: set[str]) -> list[str]:
    return [
        name
        for name in trials.settings
        if name not in but and table[name].nunique(dropna=False) > 1
    ]


def _order(claim: Claim, levels: pd.Index) -> list[Any]:
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


def _difference(cell: str, what: str, losses: pd.DataFrame, runs: pd.DataFrame) -> Contrast:
    whole = losses.dropna()
    differences = (whole["better"] - whole["worse"]).to_numpy(float)
    return _contrast(cell, what, losses, runs, differences, None)


def _slope(cell: str, losses: pd.DataFrame, runs: pd.DataFrame) -> Contrast:
    """What a line through the levels, equally spaced, says of the first against the last."""
    whole = losses.dropna()
    count = losses.shape[1]
    position = np.arange(count) - (count - 1) / 2
    weights = -position * (count - 1) / (position**2).sum()
    what = f"{losses.columns[0]} - {losses.columns[-1]}, fitted"
    values = whole.to_numpy(float)
    return _contrast(cell, what, losses, runs, values @ weights, values[:, ::-1])


def _contrast(
    cell: str,
    what: str,
    losses: pd.DataFrame,
    runs: pd.DataFrame,
    differences: Floats,
    levels: Floats | None,
) -> Contrast:
    whole = losses.notna().all(axis="columns")
    ids = tuple(runs[whole].to_numpy().ravel())
    seeds = tuple(int(seed) for seed in losses.index[whole])
    return Contrast(cell, what, seeds, differences, int((~whole).sum()), ids, levels)


def _select(table: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    for name, value in selection.items():
        table = table[table[name].isin(value if isinstance(value, list) else [value])]
    return table


def _label(selection: Selection) -> str:
    """The values of a selection, for people."""
    listed = [value if isinstance(value, list) else [value] for value in selection.values()]
    return " ".join("|".join(map(str, values)) for values in listed)
