"""Synthetic sweeps whose truth is known, as CSV files, and the verdicts on claims about them.

A sweep has a `size`, which claims compare, and a `width`, which makes the cells. A loss is a mean,
plus an effect of its seed, which all trials of the seed share, plus noise.
"""

from __future__ import annotations

import gc
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis import Conclusion, check_claims, load_trials

LOSS = 2.4  # nats per character
SPREAD = 0.005  # of the losses of one configuration over seeds, in nats: this project's
SEED_SPREAD = 0.01  # of what all trials of a seed share
STUCK_SHARE, STUCK_HIGHER = 0.05, 0.1  # of the runs, and by how many nats

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
Means = tuple[tuple[float, ...], ...]  # cells x levels, in nats


def _normal(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return chance.normal(0, 1, shape)


def _t3(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return chance.standard_t(3, shape) / math.sqrt(3)


def _wide(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return chance.normal(0, 2, shape)


def _gumbel(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return (chance.gumbel(0, 1, shape) - np.euler_gamma) / (math.pi / math.sqrt(6))


def _lognormal(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return (chance.lognormal(0, 1, shape) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)


def _stuck(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    is_stuck = chance.random(shape) < STUCK_SHARE
    return chance.normal(0, 1, shape) + (is_stuck - STUCK_SHARE) * STUCK_HIGHER / SPREAD


@dataclass(frozen=True)
class Noise:
    """Noise of mean zero, in units of the spread: of all levels, or of some beside normal ones."""

    draw: Draw
    is_of_all: bool = False


SYMMETRIC = {
    "normal": Noise(_normal, True),
    "t3": Noise(_t3, True),
    "unequal variances": Noise(_wide),
}
SKEWED = {
    "Gumbel": Noise(_gumbel),
    "Gumbel, both": Noise(_gumbel, True),
    "lognormal": Noise(_lognormal),
    "lognormal, both": Noise(_lognormal, True),
    "stuck runs": Noise(_stuck),
    "stuck runs, both": Noise(_stuck, True),
}
NOISES = SYMMETRIC | SKEWED


@dataclass(frozen=True)
class Truth:
    """The means of a sweep, and the levels (counted from 0) that have the noise in question."""

    means: Means
    noisy: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Design:
    """What sweeps are drawn from."""

    truth: Truth
    noise: Noise
    seeds: int  # of each configuration
    spread: float = SPREAD  # of the noise, in nats

    def losses(self, chance: np.random.Generator) -> Floats:
        """Draw the losses of a sweep: cells x levels x seeds, in nats per character."""
        means = np.array(self.truth.means)
        drawn = self.noise.draw(chance, (*means.shape, self.seeds))
        if not self.noise.is_of_all:
            rest = [level for level in range(means.shape[1]) if level not in self.truth.noisy]
            drawn[:, rest] = chance.normal(0, 1, drawn[:, rest].shape)
        shared = chance.normal(0, SEED_SPREAD, self.seeds)
        return np.asarray(LOSS + means[..., None] + shared + self.spread * drawn)


def write_sweep(path: Path, losses: Floats) -> None:
    """Write a sweep as a table: a row for each of cells x levels x seeds."""
    rows = ["width,size,seed,val_loss"]
    for (cell, level, seed), loss in np.ndenumerate(losses):
        rows.append(f"{8 * (cell + 1)},{level + 1},{seed + 1},{float(loss)!r}")
    path.write_text("\n".join(rows) + "\n")


def conclusions(
    claims: Sequence[Mapping[str, Any]], design: Design, sweeps: int, chance: np.random.Generator
) -> Iterator[list[Conclusion]]:
    """Judge claims, given as in a file but without a sentence, by each of many sweeps.

    A sweep goes all the way, from a table in a file to its conclusions.
    """
    with tempfile.TemporaryDirectory() as folder, _quick_collections():
        table, file = Path(folder, "trials.csv"), Path(folder, "claims.yaml")
        file.write_text(json.dumps({"claims": [{"claim": "it is so", **each} for each in claims]}))
        for _ in range(sweeps):
            write_sweep(table, design.losses(chance))
            yield check_claims(load_trials(str(table)), file)


@contextmanager
def _quick_collections() -> Iterator[None]:
    """Leave what is loaded out of garbage collections: statsmodels makes one for each claim."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
