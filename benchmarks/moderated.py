"""Claims of every cell, tested plainly and with variances borrowed across cells.

Power with all cells better, and the level with one cell that is not, by how the variances differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from analysis.moderated import moderated_below_zero
from analysis.statistics import Floats, below_zero
from benchmarks.measuring import BenchmarkOptions, print_section, print_table
from benchmarks.verdicts import percent

SWEEPS, SWEEPS_QUICK = 2_000, 20
CHANCE = 23  # seed of all random numbers
LEVEL = 0.05
SEEDS, MORE_SEEDS = 5, 10
CELLS = (2, 3, 6, 12, 36)
POWER_CELLS = 12
EFFECT, SPREAD, CLEAR = 0.010, 0.007, 1.0  # nats; the spread is of paired differences
PRIOR_DEGREES = 4
ABOUT = """\
Shares of {sweeps} sweeps in percent (and their standard errors) in which the tests of all cells
reject at 5 %; n seeds. Power: all cells are better by 0.010 nats, with paired differences that
spread by 0.007. Level: the first cell has no difference, the others are clear. Variances of cells:
equal; drawn from a scaled inverse chi-square distribution with 4 degrees of freedom; equal but for
the first cell, whose variance is a multiple of that of the others."""

Variances = Callable[[np.random.Generator, int], Floats]  # of cells, by their number


def equal(chance: np.random.Generator, cells: int) -> Floats:
    return np.ones(cells)


def drawn(chance: np.random.Generator, cells: int) -> Floats:
    return np.asarray(PRIOR_DEGREES / chance.chisquare(PRIOR_DEGREES, cells))


def first_is(times: float) -> Variances:
    """Return variances of which the first is a multiple of the others."""

    def variances(chance: np.random.Generator, cells: int) -> Floats:
        return np.array([times] + [1.0] * (cells - 1))

    return variances


VARIANCES: Mapping[str, Variances] = {
    "equal": equal,
    "inverse chi-square, 4 df": drawn,
    "one 4 times as large": first_is(4),
    "one 16 times as large": first_is(16),
    "one a quarter as large": first_is(1 / 4),
}

Rows = Iterator[Mapping[str, object]]


def run(options: BenchmarkOptions) -> None:
    sweeps = options.sweeps or (SWEEPS_QUICK if options.is_quick else SWEEPS)
    print_section("moderated", ABOUT.format(sweeps=sweeps), torch.device("cpu"))
    power, level = np.random.default_rng(CHANCE).spawn(2)
    print_table(_power(sweeps, power))
    print_table(_level(sweeps, level))


def _power(sweeps: int, chance: np.random.Generator) -> Rows:
    for seeds, (name, variances) in itertools.product((SEEDS, MORE_SEEDS), VARIANCES.items()):
        means = np.full(POWER_CELLS, -EFFECT)
        shares = all_reject(means, variances, seeds, sweeps, chance)
        yield {"variances": name, "cells": POWER_CELLS, "n": seeds} | _columns(shares, sweeps)


def _level(sweeps: int, chance: np.random.Generator) -> Rows:
    for cells, (name, variances) in itertools.product(CELLS, VARIANCES.items()):
        means = np.array([0.0] + [-CLEAR] * (cells - 1))
        shares = all_reject(means, variances, SEEDS, sweeps, chance)
        yield {"variances": name, "cells": cells, "n": SEEDS} | _columns(shares, sweeps)


def _columns(shares: tuple[float, float], sweeps: int) -> dict[str, object]:
    plain, moderated = shares
    return {"plain": percent(plain, sweeps), "moderated": percent(moderated, sweeps)}


def all_reject(
    means: Floats, variances: Variances, seeds: int, sweeps: int, chance: np.random.Generator
) -> tuple[float, float]:
    """Return the shares of sweeps in which the tests of all cells reject: plain and moderated.

    Args:
        means: of the differences of each cell, in nats.
        variances: of each cell, in units of `SPREAD` squared.
        seeds: of each cell.
        sweeps: how many are drawn.
        chance: of all draws.
    """
    rejected = np.zeros(2)
    for _ in range(sweeps):
        spreads = SPREAD * np.sqrt(variances(chance, len(means)))
        noise = chance.standard_normal((len(means), seeds))
        samples = list(means[:, None] + spreads[:, None] * noise)
        p_values = below_zero(samples), moderated_below_zero(samples).p_values
        rejected += [float(p.max()) < LEVEL for p in p_values]
    plain, moderated = rejected / sweeps
    return float(plain), float(moderated)
