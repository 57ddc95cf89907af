"""Differences of losses between configurations, by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.claims.pairing import LOSS, PROVENANCE, Configuration, Run
from analysis.statistics import Floats, resolution
from analysis.trials.selection import Value

ENOUGH = 5  # different losses, from which it is plain to what they were rounded
ABSENT = Configuration({}, {})
DIFFERENCE = np.array([1.0, -1.0])


@dataclass(frozen=True)
class Contrast:
    """Differences by seed, in nats per character; a negative one supports the claim.

    Both trials of a difference have the same seed, so they drew the same batches where their
    block_size agrees, and started from the same values where their shapes do.
    """

    cell: str  # the settings that are held fixed, such as "n_embd=64 block_size=8"
    what: str  # which minus which, such as "rope - sinpe"
    seeds: tuple[int, ...]
    losses: Floats  # seeds x sides, the side that should have the lowest loss first
    weights: Floats  # of the sides, adding up to zero: 1, -1 for one minus the other
    lost: int  # seeds of which a trial is missing or did not finish
    run_ids: tuple[str, ...]
    resolution: float = 0.0  # nats: the losses are multiples of it, as they are rounded
    differs: tuple[str, ...] = ()  # other settings and PROVENANCE in which the sides differ
    repeated: int = 0  # seeds left out, as all losses are those of an earlier one
    candidate: Value | None = None  # `best: any`: the level that is tested as the best one
    before_missing: int | None = None  # seeds before the first that is missing; None: all
    after_missing: int = 0  # finished pairs that do not count, because they come after it

    @property
    def differences(self) -> Floats:
        """Differences in nats, one for each seed."""
        return self.losses @ self.weights

    @property
    def rounding(self) -> float:
        """Largest error of a difference that rounded losses make, in nats."""
        return self.resolution / 2 * float(np.abs(self.weights).sum())

    @property
    def levels(self) -> Floats | None:
        """Losses (seeds x levels) that should fall from level to level, of more than two levels."""
        return self.losses[:, ::-1] if self.losses.shape[1] > 2 else None

    def leading(self) -> Contrast:
        """Return the contrast of the seeds before the first missing one, which has lost no pair."""
        count = len(self.seeds) if self.before_missing is None else self.before_missing
        sides = self.losses.shape[1]
        return replace(
            self,
            seeds=self.seeds[:count],
            losses=self.losses[:count],
            run_ids=self.run_ids[: count * sides],
            lost=0,
            before_missing=None,
            after_missing=self.after_missing + len(self.seeds) - count,
        )

    @property
    def has_equal_losses(self) -> bool:
        """True if a side has the same loss with several seeds."""
        return any(len(np.unique(side)) < len(side) for side in self.losses.T)

    @property
    def mean(self) -> float:
        """Mean difference in nats; NaN where no pair is finished."""
        return float(self.differences.mean()) if len(self.differences) else float("nan")


def measured(
    cell: str,
    what: str,
    sides: Sequence[Configuration],
    weights: Floats,
    every_seed: Iterable[int],
) -> Contrast:
    """Compare the seeds whose trials finished on all sides, and count the others as lost.

    Seeds whose losses are all those of an earlier one count once: they are copies, or the models
    do not depend on the seed.

    Args:
        cell: the settings that are held fixed.
        what: the difference, such as "rope - sinpe".
        sides: the configurations.
        weights: of the sides.
        every_seed: seeds that there should be, besides those of the sides.
    """
    planned = sorted({*every_seed}.union(*(side.runs for side in sides)))
    missing = Run("", math.nan, ())
    runs = [[side.runs.get(seed, missing) for side in sides] for seed in planned]
    losses = np.array([[run.loss for run in row] for row in runs]).reshape(-1, len(sides))
    whole = np.flatnonzero(np.isfinite(losses).all(axis=1))
    _, first = np.unique(losses[whole], axis=0, return_index=True)
    kept = whole[np.sort(first)].tolist()
    missing_rows = np.flatnonzero(~np.isfinite(losses).all(axis=1))
    end = missing_rows[0] if len(missing_rows) else len(planned)
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
        before_missing=sum(row < end for row in kept),
    )


def _provenance(rows: Sequence[Sequence[Run]]) -> tuple[str, ...]:
    """Return the entries of PROVENANCE that are known to differ between runs of one seed."""
    return tuple(
        name
        for at, name in enumerate(PROVENANCE)
        if any(len({run.provenance[at] for run in row} - {""}) > 1 for row in rows)
    )


def resolution_of(*sides: pd.DataFrame) -> float:
    """Return the step to which losses were rounded, in nats; of several sides the coarsest.

    A few losses may by chance be multiples of a larger step, so a side is examined alone only if it
    has enough different losses.
    """
    known = [side[LOSS].dropna() for side in sides]
    if not any(map(len, known)):
        return 0.0
    many = [losses for losses in known if losses.nunique() >= ENOUGH]
    return max(map(resolution, [pd.concat(known), *many]))
