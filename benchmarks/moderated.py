"""Claims of every cell, tested plainly and with variances borrowed across cells.

Power with all cells better, and the level with one cell that is not, by how the variances differ;
at one look, and at any of many looks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from analysis.anytime import NOTHING, Residuals, log_e_below_zero
from analysis.claims.borrowing import PAIRS
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
EFFECTS = (EFFECT, 0.020, 0.040)  # nats, at any look
PRIOR_DEGREES = 4
LOOKS, LOOKS_QUICK = 50, 6  # one after each seed
ABOUT = """\
Shares of {sweeps} sweeps in percent (and their standard errors) in which the tests of all cells
reject at 5 %; n seeds. Power: all cells are better by 0.010 nats, with paired differences that
spread by 0.007. Level: the first cell has no difference, the others are clear. Variances of cells:
equal; drawn from a scaled inverse chi-square distribution with 4 degrees of freedom; equal but for
the first cell, whose variance is a multiple of that of the others. Then the same at any of
{looks} looks, one after each seed: the seeds with which all cells are found better, in the median
of sweeps, and the share of sweeps in which the first cell is found better though it is not."""

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
    looks = LOOKS_QUICK if options.is_quick else LOOKS
    about = ABOUT.format(sweeps=sweeps, looks=looks)
    print_section("moderated", about, torch.device("cpu"))
    power, level, later_power, later_level = np.random.default_rng(CHANCE).spawn(4)
    print_table(_power(sweeps, power))
    print_table(_level(sweeps, level))
    print_table(_power_at_any_look(sweeps, looks, later_power))
    print_table(_level_at_any_look(sweeps, looks, later_level))


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


def _power_at_any_look(sweeps: int, looks: int, chance: np.random.Generator) -> Rows:
    for effect, (name, variances) in itertools.product(EFFECTS, VARIANCES.items()):
        means = np.full(POWER_CELLS, -effect)
        found = seeds_until_better(means, variances, looks, sweeps, chance)
        plain, borrowed = (int(np.median(seeds.max(axis=1))) for seeds in found)
        about = {"variances": name, "cells": POWER_CELLS, "better by": effect}
        yield {**about, "plain": plain, "borrowed": borrowed}


def _level_at_any_look(sweeps: int, looks: int, chance: np.random.Generator) -> Rows:
    for cells, (name, variances) in itertools.product(CELLS, VARIANCES.items()):
        means = np.array([0.0] + [-CLEAR] * (cells - 1))
        found = seeds_until_better(means, variances, looks, sweeps, chance)
        plain, borrowed = (percent(float((seeds[:, 0] <= looks).mean()), sweeps) for seeds in found)
        yield {"variances": name, "cells": cells, "plain": plain, "borrowed": borrowed}


def seeds_until_better(
    means: Floats, variances: Variances, looks: int, sweeps: int, chance: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return with how many seeds each cell is found better (sweeps x cells): plain and borrowed.

    A cell that no look finds better has one seed more than there are looks.

    Args:
        means: of the differences of each cell, in nats.
        variances: of each cell, in units of `SPREAD` squared.
        looks: one after each seed.
        sweeps: how many are drawn.
        chance: of all draws.
    """
    cells = len(means)
    spreads = SPREAD * np.sqrt([variances(chance, cells) for _ in range(sweeps)])
    noise = chance.standard_normal((sweeps, cells, looks))
    values = means[:, None] + spreads[..., None] * noise
    squares = values[..., :PAIRS].var(axis=2) * PAIRS  # around the means of the first pairs
    others = squares.sum(axis=1, keepdims=True) - squares
    borrowed = Residuals(others[..., None], (PAIRS - 1.0) * (cells - 1))
    plain, shared = (_seeds(log_e_below_zero(values, 0.0, it)) for it in (NOTHING, borrowed))
    return plain, np.maximum(shared, PAIRS)


def _seeds(log_e: Floats) -> Floats:
    rejects = log_e >= -np.log(LEVEL)
    return np.where(rejects.any(axis=-1), rejects.argmax(axis=-1) + 1, log_e.shape[-1] + 1)


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
