"""Differences of losses between configurations, by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.claims.configurations import PROVENANCE, Configuration, Run, Runs
from analysis.statistics import Floats, resolution
from analysis.trials.selection import Value

ENOUGH = 5  # different losses, from which it is plain to what they were rounded
MISSING = Run("", math.nan, ())
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
    has_gap: bool = False  # whether a side has no trials, not even planned ones
    is_disjoint: bool = False  # whether each side has finished trials, but no seed in common
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


@dataclass(frozen=True)
class Comparison:
    """Configurations that a claim compares in a cell, whatever their losses are.

    Seeds of `every_seed` and of all sides should be there; one that is missing on a side is lost.
    """

    cell: str  # as in a contrast, as are the next two
    what: str
    weights: Floats
    sides: tuple[Configuration, ...]
    every_seed: Sequence[int]
    differs: tuple[str, ...] = ()  # settings in which the sides differ besides what is compared
    candidate: Value | None = None

    def measured(self, runs: Sequence[Runs]) -> Contrast:
        """Compare the seeds whose trials finished on all sides, and count the others as lost.

        Seeds whose losses are all those of an earlier one count once: they are copies, or the
        models do not depend on the seed.

        Args:
            runs: of the sides.

        Returns:
            The contrast; its `resolution` is not known here.
        """
        planned = sorted({*self.every_seed}.union(*runs))
        rows = [[side.get(seed, MISSING) for side in runs] for seed in planned]
        losses = [tuple(run.loss for run in row) for row in rows]
        whole = [i for i, row in enumerate(losses) if all(map(math.isfinite, row))]
        first: dict[tuple[float, ...], int] = {}
        for i in whole:
            first.setdefault(losses[i], i)
        kept = list(first.values())
        end = next((i for i, at in enumerate(whole) if i != at), len(whole))
        return Contrast(
            cell=self.cell,
            what=self.what,
            seeds=tuple(int(planned[i]) for i in kept),
            losses=np.array([*first]).reshape(-1, len(self.sides)),
            weights=self.weights,
            lost=len(planned) - len(whole),
            run_ids=tuple(run.run_id for i in kept for run in rows[i]),
            differs=(*self.differs, *_provenance([rows[i] for i in kept])),
            repeated=len(whole) - len(kept),
            candidate=self.candidate,
            before_missing=sum(i < end for i in kept),
            has_gap=not all(runs),
            is_disjoint=bool(losses) and not whole and _is_finished(losses),
        )


def _is_finished(losses: Sequence[tuple[float, ...]]) -> bool:
    """Return whether each side has a loss with some seed (seeds x sides)."""
    return all(any(map(math.isfinite, side)) for side in zip(*losses, strict=True))


def _provenance(rows: Sequence[Sequence[Run]]) -> tuple[str, ...]:
    """Return the entries of PROVENANCE that are known to differ between runs of one seed."""
    several = [known for row in rows if len(known := {run.provenance for run in row}) > 1]
    return tuple(
        name
        for at, name in enumerate(PROVENANCE)
        if any(len({each[at] for each in known} - {""}) > 1 for known in several)
    )


def resolution_of(sides: Sequence[Sequence[Runs]]) -> float:
    """Return the step to which losses were rounded, in nats; of several sides the coarsest.

    A few losses may by chance be multiples of a larger step, so a side is examined alone only if it
    has enough different losses.
    """
    losses = [[r.loss for runs in side for r in runs.values()] for side in sides]
    known = [[loss for loss in side if math.isfinite(loss)] for side in losses]
    if not any(known):
        return 0.0
    many = [side for side in known if len(set(side)) >= ENOUGH]
    return max(map(resolution, [[loss for side in known for loss in side], *many]))
