"""Synthetic sweeps whose truth is known, as CSV files, and the verdicts on claims about them.

A sweep has a `size`, which claims compare, and a `width`, which defines the cells. A loss is a
mean, plus an effect of its seed, which all trials of the seed share, plus noise.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from analysis import Conclusion, check_claims, load_trials

LOSS = 2.4  # nats per character
SPREAD = 0.005  # standard deviation over seeds, in nats, as measured in this project
SEED_SPREAD = 0.01  # standard deviation of the effect of a seed, in nats
STUCK_SHARE, STUCK_HIGHER = 0.05, 0.1  # share of runs that are stuck, and their excess in nats

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
class NoiseModel:
    """Noise of mean zero, in units of the spread, of some levels, and the noise of the others."""

    draw: Draw
    others: Literal["the same", "normal", "none"] = "the same"


SYMMETRIC = {
    "normal": NoiseModel(_normal),
    "t3": NoiseModel(_t3),
    "unequal variances": NoiseModel(_wide, "normal"),
}
SKEWED = {
    "Gumbel": NoiseModel(_gumbel, "normal"),
    "Gumbel, alone": NoiseModel(_gumbel, "none"),
    "Gumbel, both": NoiseModel(_gumbel),
    "lognormal": NoiseModel(_lognormal, "normal"),
    "lognormal, alone": NoiseModel(_lognormal, "none"),
    "lognormal, both": NoiseModel(_lognormal),
    "stuck runs": NoiseModel(_stuck, "normal"),
    "stuck runs, alone": NoiseModel(_stuck, "none"),
    "stuck runs, both": NoiseModel(_stuck),
}
NOISES = SYMMETRIC | SKEWED


@dataclass(frozen=True)
class Truth:
    """The means of a sweep, and the levels (from 0) that have the noise in question."""

    means: Means
    noisy: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Design:
    """The distribution of synthetic sweeps."""

    truth: Truth
    noise: NoiseModel
    seeds: int  # of each configuration
    spread: float = SPREAD  # of the noise, in nats

    def sweeps(self, number: int, chance: np.random.Generator) -> Iterator[Floats]:
        """Draw the losses of a number of sweeps: cells x levels x seeds, in nats per character."""
        for _ in range(number):
            yield self._losses(self._noise(chance), chance)

    def typical(self, chance: np.random.Generator) -> Floats:
        """Return losses with exactly these means and spreads, whose noise is uncorrelated."""
        drawn = chance.normal(0, 1, (len(self.truth.means), self.seeds, len(self.truth.means[0])))
        orthogonal, _ = np.linalg.qr(drawn - drawn.mean(axis=1, keepdims=True))
        return self._losses(orthogonal.swapaxes(1, 2) * math.sqrt(self.seeds - 1), chance)

    def _losses(self, noise: Floats, chance: np.random.Generator) -> Floats:
        means = np.array(self.truth.means)[..., None]
        shared = chance.normal(0, SEED_SPREAD, self.seeds)
        return np.asarray(LOSS + means + shared + self.spread * noise)

    def _noise(self, chance: np.random.Generator) -> Floats:
        means = np.array(self.truth.means)
        drawn = self.noise.draw(chance, (*means.shape, self.seeds))
        if self.noise.others != "the same":
            others = [level for level in range(means.shape[1]) if level not in self.truth.noisy]
            spread = 1 if self.noise.others == "normal" else 0
            drawn[:, others] = chance.normal(0, spread, drawn[:, others].shape)
        return drawn


def write_sweep(path: Path, losses: Floats) -> None:
    """Write a sweep as a table: a row for each of cells x levels x seeds."""
    rows = ["width,size,seed,val_loss"]
    for (cell, level, seed), loss in np.ndenumerate(losses):
        rows.append(f"{8 * (cell + 1)},{level + 1},{seed + 1},{float(loss)!r}")
    path.write_text("\n".join(rows) + "\n")


def conclusions(
    claims: Sequence[Mapping[str, object]], sweeps: Iterable[Floats]
) -> Iterator[list[Conclusion]]:
    """Yield the conclusions on claims for the losses of each sweep.

    Each sweep is written to a CSV file and read back, as users do. The claims are mappings as in a
    claims file, without their sentence.
    """
    with tempfile.TemporaryDirectory() as folder:
        table, file = Path(folder, "trials.csv"), Path(folder, "claims.yaml")
        file.write_text(
            json.dumps({"claims": [{"claim": "it is so", **claim} for claim in claims]})
        )
        for losses in sweeps:
            write_sweep(table, losses)
            yield check_claims(load_trials(str(table)), file)
