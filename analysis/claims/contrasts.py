"""From a claim and the trials to contrasts: losses compared in pairs, cell by cell."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.claim import Claim, ClaimError, ConfoundedError, Selection
from analysis.claims.pairing import (
    LOSS,
    PROVENANCE,
    Configuration,
    Run,
    configurations,
    differ_in,
    label,
    pairs,
)
from analysis.errors import listed
from analysis.statistics import Floats, resolution
from analysis.trials.selection import as_in, select
from analysis.trials.table import Trials

MOST_CONTRASTS = 20_000
ENOUGH = 5  # different losses, from which it is plain to what they were rounded
ABSENT = Configuration({}, {})
DIFFERENCE = np.array([1.0, -1.0])


@dataclass(frozen=True)
class Contrast:
    """Differences by seed, in nats per character; a negative one supports the claim.

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
    resolution: float = 0.0  # the losses are multiples of it, in nats: rounded, or of few bits
    differs: tuple[str, ...] = ()  # settings and PROVENANCE in which the sides do, beside the claim
    repeated: int = 0  # seeds left out, as all losses are those of an earlier one
    candidate: Any = None  # where a claim asks which level is best: the one that is held to be

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
    def has_equal_losses(self) -> bool:
        """Whether a side has the same loss with several seeds."""
        return any(len(np.unique(side)) < len(side) for side in self.losses.T)

    @property
    def mean(self) -> float:
        """NaN where no pair is finished."""
        return float(self.differences.mean()) if len(self.differences) else float("nan")


def contrasts_of(claim: Claim, trials: Trials) -> list[Contrast]:
    """The contrasts of a claim, in the order of their cells; empty where no trials are concerned.

    What the sweep planned and is not there is lost. Where the plan is not known it is taken to be
    every combination: each cell has the levels, and each contrast the seeds, that any has.

    Raises:
        ClaimError: it names a setting or a value that no trial has, its trials differ in more than
            it says, or there are two where only one can be.
    """
    _check_names(claim, trials)
    table = trials.table.assign(**{LOSS: trials.comparable["val_loss"]})  # NaN for what is left out
    table = select(table[table["stage"] == ""], claim.where)
    between = _between_selections if claim.factor is None else _between_levels
    found = list(itertools.islice(between(claim, trials, table), MOST_CONTRASTS + 1))
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
    """What is wrong with a claim that names it."""
    return (
        f"no trial of {trials.experiment!r} has a setting {name!r}; they have:"
        f" {listed(trials.params)}"
    )


def _between_levels(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Levels of a factor against one another, all else fixed."""
    factor = claim.factor
    assert factor is not None
    if (claim.monotone or claim.trend) and not pd.api.types.is_numeric_dtype(table[factor]):
        raise ClaimError(
            f"{factor} is not a number in every trial, so it has no direction; name its levels"
            " with `order`",
            "factor",
        )
    if factor not in trials.settings:  # all trials have the same level
        return
    table = table[table[factor].notna()]
    named = [as_in(table[factor], level) for level in claim.named_levels]
    if len(set(named)) < len(named):
        raise ClaimError(f"a level occurs twice in {', '.join(map(str, named))}", "factor")
    compared = set(named) if claim.names_all else {*named, *table[factor]}
    rows = table[table[factor].isin(list(compared))]
    coarsest = _resolution(*(level for _, level in rows.groupby(factor)))
    every_seed = () if trials.plan_known else rows["seed"].unique()
    for cell, by_level in _cells(claim, configurations(trials, table), compared):
        present = {*named, *(by_level if trials.plan_known else compared)}
        candidates = _ascending(compared) if claim.asks_best else [None]
        for candidate in candidates:
            best = named[:1] if candidate is None else [candidate]
            for what, chosen, weights in _steps(claim, _order(claim, named, best, present)):
                sides = [by_level.get(level, ABSENT) for level in chosen]
                found = _contrast(cell, what, sides, weights, every_seed)
                differs = (*(n for n in claim.despite if _differ(sides, n)), *found.differs)
                yield replace(found, differs=differs, resolution=coarsest, candidate=candidate)


def _cells(
    claim: Claim, found: Sequence[Configuration], compared: Collection[Any]
) -> list[tuple[str, dict[Any, Configuration]]]:
    """The configurations that agree in all but the factor and `despite`, by their levels.

    Raises:
        ClaimError: a level has several.
        ConfoundedError: no two levels have configurations that agree.
    """
    factor = str(claim.factor)
    names = [n for n in found[0].settings if n not in (factor, *claim.despite)] if found else []
    vary = [name for name in names if _differ(found, name)]
    cells: dict[tuple[Any, ...], dict[Any, Configuration]] = defaultdict(dict)
    for each in found:
        level, cell = each.settings[factor], tuple(each.settings[name] for name in vary)
        by_level = cells[cell]  # there also where its level is not compared
        if level in by_level:
            open_ = [name for name in claim.despite if _differ([by_level[level], each], name)]
            raise ClaimError(
                f"several configurations with {factor}={level}, such as {label(each.settings)},"
                f" differ only in {', '.join(open_)}: fix that by `where`",
                "despite",
            )
        if level in compared:
            by_level[level] = each
    if not any(len(by_level) > 1 for by_level in cells.values()):
        _refuse_confounded(factor, vary, [f for f in found if f.settings[factor] in compared])
    return [(label(dict(zip(vary, cell, strict=True))), each) for cell, each in cells.items()]


def _refuse_confounded(factor: str, names: Sequence[str], found: Sequence[Configuration]) -> None:
    """Say in what the first configuration and the nearest one of another level differ."""
    others = [each for each in found if each.settings[factor] != found[0].settings[factor]]
    if others:
        apart = [[n for n in names if _differ([found[0], each], n)] for each in others]
        nearest = min(range(len(others)), key=lambda at: len(apart[at]))
        raise ConfoundedError(
            f"no two levels of {factor} agree in all else, such as {label(found[0].settings)}: the"
            f" nearest {differ_in(apart[nearest], found[0], others[nearest])}",
            "factor",
        )


def _between_selections(claim: Claim, trials: Trials, table: pd.DataFrame) -> Iterator[Contrast]:
    """Each configuration of a selection against each of another that agrees with it."""
    assert claim.better is not None
    assert claim.worse is not None
    sides = better, worse = select(table, claim.better), select(table, claim.worse)
    if shared := better.index.intersection(worse.index).size:
        raise ClaimError(f"{shared} trials are both better and worse", "worse")
    every_seed = () if trials.plan_known else pd.concat(sides)["seed"].unique()
    coarsest = _resolution(*sides)
    what = f"{_values(claim.better)} - {_values(claim.worse)}"
    ours, theirs = (configurations(trials, side) for side in sides)
    vary, others_vary = (_varying(side) for side in (ours, theirs))
    for pair in pairs(claim, ours, theirs):
        cell = label({name: pair.better.settings[name] for name in vary})
        if others_vary:
            against = label({name: pair.worse.settings[name] for name in others_vary})
            cell = f"{cell} against {against}".strip()
        found = _contrast(cell, what, [pair.better, pair.worse], DIFFERENCE, every_seed)
        yield replace(found, differs=(*pair.differs, *found.differs), resolution=coarsest)


def _order(
    claim: Claim, named: Sequence[Any], best: Sequence[Any], present: Collection[Any]
) -> list[Any]:
    """The levels, the one that should have the lowest loss first.

    Args:
        claim: whose form decides.
        named: the levels that it names.
        best: of a claim of that form, the level that should be best: also where a cell lacks it.
        present: all that a cell should have.
    """
    if claim.order is not None or claim.equal is not None:
        return list(named)
    ascending = _ascending(present)
    if claim.best is not None:
        return [*best, *(level for level in ascending if level not in best)]
    return ascending if "rising" in (claim.monotone, claim.trend) else ascending[::-1]


def _ascending(levels: Iterable[Any]) -> list[Any]:
    """Numbers, then words."""
    return sorted(levels, key=lambda level: (isinstance(level, str), level))


def _steps(claim: Claim, levels: Sequence[Any]) -> list[tuple[str, Sequence[Any], Floats]]:
    """What is compared: in words, the levels, and their weights."""
    if claim.trend:
        return [_line(levels)] if len(levels) > 1 else []
    if claim.best is not None:
        two = [(levels[0], other) for other in levels[1:]]
    elif claim.equal is not None:
        two = list(itertools.combinations(levels, 2))
    else:
        two = list(itertools.pairwise(levels))
    return [(f"{better} - {worse}", (better, worse), DIFFERENCE) for better, worse in two]


def _line(levels: Sequence[Any]) -> tuple[str, Sequence[Any], Floats]:
    """What a line through the levels, equally spaced, says of the first against the last."""
    position = np.arange(len(levels)) - (len(levels) - 1) / 2
    weights = -position * (len(levels) - 1) / (position**2).sum()
    return f"{levels[0]} - {levels[-1]}, fitted", levels, weights


def _contrast(
    cell: str,
    what: str,
    sides: Sequence[Configuration],
    weights: Floats,
    every_seed: Iterable[int],
) -> Contrast:
    """Compare the seeds whose trials finished on all sides, and count the others as lost.

    Seeds whose losses are all those of an earlier one count once: they are copies, or the models
    have no chance in them.
    """
    planned = sorted({*every_seed}.union(*(side.runs for side in sides)))
    missing = Run("", math.nan, ())
    runs = [[side.runs.get(seed, missing) for side in sides] for seed in planned]
    losses = np.array([[run.loss for run in row] for row in runs]).reshape(-1, len(sides))
    whole = np.flatnonzero(np.isfinite(losses).all(axis=1))
    _, first = np.unique(losses[whole], axis=0, return_index=True)
    kept = whole[np.sort(first)].tolist()
    return Contrast(
        cell=cell,
        what=what,
        seeds=tuple(int(planned[row]) for row in kept),
        losses=losses[kept],
        weights=weights,
        lost=len(planned) - len(whole),
        run_ids=tuple(run.run_id for row in kept for run in runs[row]),
        differs=_provenance([runs[row] for row in kept]),
        repeated=len(whole) - len(kept),
    )


def _provenance(rows: Sequence[Sequence[Run]]) -> tuple[str, ...]:
    """In what the trials of some seed were made with they differ, as far as it is known."""
    return tuple(
        name
        for at, name in enumerate(PROVENANCE)
        if any(len({run.provenance[at] for run in row} - {""}) > 1 for row in rows)
    )


def _varying(found: Sequence[Configuration]) -> list[str]:
    return [name for name in found[0].settings if _differ(found, name)] if found else []


def _differ(found: Sequence[Configuration], name: str) -> bool:
    """Whether those that are there have several values of a setting, or some have none."""
    return len({each.settings.get(name) for each in found if each.settings}) > 1


def _resolution(*sides: pd.DataFrame) -> float:
    """What the losses were rounded to; the coarsest of the sides, where each has its own.

    A few losses may be multiples of more than they were rounded to by chance.
    """
    known = [side[LOSS].dropna() for side in sides]
    if not any(map(len, known)):
        return 0.0
    many = [losses for losses in known if losses.nunique() >= ENOUGH]
    return max(map(resolution, [pd.concat(known), *many]))


def _values(selection: Selection) -> str:
    """The values of a selection, for people."""
    listed = [value if isinstance(value, list) else [value] for value in selection.values()]
    return " ".join("|".join(map(str, values)) for values in listed)
