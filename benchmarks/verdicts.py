"""The rates of wrong verdicts on synthetic sweeps whose truth is known.

Each claim is tested where that is hardest: at the edge of its truth, with all else clear.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from analysis.claims.forecast import chances
from benchmarks.edges import EDGES, EVERY, REFUTED, SUPPORTED, Edge, by_truth
from benchmarks.measuring import BenchmarkOptions, print_section, print_table
from benchmarks.synthetic import (
    NOISES,
    SKEWED,
    SYMMETRIC,
    Design,
    Means,
    NoiseModel,
    Truth,
    conclusions,
)

SWEEPS, SWEEPS_QUICK = 1_000, 2
SEEDS, MORE_SEEDS = 5, 10  # of each configuration
CELLS, CELLS_QUICK = (12, 24, 36), (3,)  # numbers of cells; the weakest cell decides
CHANCE = 17  # seed of all random numbers
ABOUT = """\
Shares of {sweeps} sweeps in percent (and their standard errors); n seeds. Noise is of the arm that
looks better, unless it is of both; the other arm has normal noise, or none ("alone")."""

TESTS = ("order", "trend", "equal")  # the forms whose tests differ
PAIR: dict[str, object] = {"factor": "size", "order": [2, 1]}
SAME: dict[str, object] = {"factor": "size", "equal": [2, 1]}
FALLING: dict[str, object] = {"factor": "size", "trend": "falling"}
NOT_EVERY: dict[str, object] = {"holds": "not in every cell"}
CASES: Sequence[
    tuple[Mapping[str, object], Means, float, int]
] = (  # the spread of differences; seeds
    (PAIR, ((0.0015, 0),), 0.0015, 5),  # less than the margin
    (PAIR, ((0.0015, 0),), 0.0015, 10),
    (PAIR, ((0.0015, 0),), 0.0015, 20),
    (PAIR, ((0.0003, 0), (0.03, 0)), 0.0027, 20),
    (PAIR, ((0.0003, 0), (0.03, 0)), 0.0027, 50),
    (PAIR | NOT_EVERY, ((0.0003, 0), (0, 0.004)), 0.0027, 8),
    (SAME, ((0.0005, 0),), 0.0015, 8),
    (SAME | NOT_EVERY, ((0.005, 0),), 0.003, 8),
    (FALLING, ((0.006, 0.004, 0),), 0.006, 4),
    (FALLING, ((0.006, 0.004, 0),), 0.006, 7),
    (FALLING, ((0.01, 0.0101, 0.01, 0),), 0.003, 5),  # Page's test is in doubt, the line is not
)

Rows = Iterator[Mapping[str, object]]


def wrong_shares(
    edges: Sequence[Edge], noise: NoiseModel, seeds: int, sweeps: int, chance: np.random.Generator
) -> list[float]:
    """Return the share of sweeps in which each claim gets the wrong verdict; one truth for all."""
    design = Design(edges[0].truth, noise, seeds)
    wrong = np.zeros(len(edges))
    claims = [edge.claim for edge in edges]
    for of_sweep in conclusions(claims, design.sweeps(sweeps, chance)):
        wrong += [
            conclusion.verdict == edge.wrong
            for conclusion, edge in zip(of_sweep, edges, strict=True)
        ]
    return [float(share) for share in wrong / sweeps]


def run(options: BenchmarkOptions) -> None:
    sweeps = options.sweeps or (SWEEPS_QUICK if options.is_quick else SWEEPS)
    print_section("verdicts", ABOUT.format(sweeps=sweeps), torch.device("cpu"))
    symmetric, skewed, more, forecasts, coverage = np.random.default_rng(CHANCE).spawn(5)
    tested = [
        edge
        for edge in EDGES
        if edge.form in TESTS and (edge.wrong == SUPPORTED or edge.holds == EVERY)
    ]
    ordered = [edge for edge in EDGES if edge.form == "order" and edge.wrong == SUPPORTED]
    print_table(_errors(EDGES, SYMMETRIC, SEEDS, sweeps, symmetric))
    print_table(_errors(tested, SKEWED, SEEDS, sweeps, skewed))
    print_table(_errors(ordered, NOISES, MORE_SEEDS, sweeps, more))
    print_table(_forecasts(sweeps, forecasts))
    print_table(_coverage(CELLS_QUICK if options.is_quick else CELLS, sweeps, coverage))


def _errors(
    edges: Sequence[Edge],
    noises: Mapping[str, NoiseModel],
    seeds: int,
    sweeps: int,
    chance: np.random.Generator,
) -> Rows:
    for group in by_truth(edges):
        columns = {
            name: wrong_shares(group, noise, seeds, sweeps, chance)
            for name, noise in noises.items()
        }
        for row, edge in enumerate(group):
            rates = {name: percent(shares[row], sweeps) for name, shares in columns.items()}
            yield {
                "claim": edge.form,
                "holds": edge.holds,
                "wrong": edge.wrong,
                "n": seeds,
                **rates,
            }


def _forecasts(sweeps: int, chance: np.random.Generator) -> Rows:
    """Compare forecast and measured rates, where the margin rule or Page's test decides."""
    for claim, means, spread, seeds in CASES:
        design = Design(Truth(means), NOISES["normal"], seeds, spread / math.sqrt(2))
        ((typical,),) = conclusions([claim], [design.typical(chance)])
        expected = chances(typical.claim, typical.basis, seeds)
        drawn = conclusions([claim], design.sweeps(sweeps, chance))
        counts = Counter(conclusion.verdict for (conclusion,) in drawn)
        yield {
            "claim": ", ".join(map(str, claim.values())),
            "means": "; ".join(", ".join(map(str, cell)) for cell in means),
            "spread": spread,
            "n": seeds,
            "SUPPORTED, forecast": f"{100 * expected.supported:.1f}",
            "SUPPORTED": percent(counts[SUPPORTED] / sweeps, sweeps),
            "NOT SUPPORTED, forecast": f"{100 * expected.refuted:.1f}",
            "NOT SUPPORTED": percent(counts[REFUTED] / sweeps, sweeps),
        }


def _coverage(cells: Sequence[int], sweeps: int, chance: np.random.Generator) -> Rows:
    """Return how often the interval of the deciding cell contains the true difference.

    The true difference is zero in all cells, so the most extreme cell decides by luck.
    """
    for number, seeds in itertools.product(cells, (SEEDS, MORE_SEEDS)):
        design = Design(Truth(((0, 0),) * number), NOISES["normal"], seeds)
        inside = np.zeros(2)
        for (conclusion,) in conclusions([PAIR], design.sweeps(sweeps, chance)):
            intervals = (conclusion.effect, conclusion.simultaneous)
            inside += [interval.low <= 0 <= interval.high for interval in intervals]
        alone, together = inside / sweeps
        yield {
            "cells": number,
            "n": seeds,
            "interval by itself": percent(alone, sweeps),
            "simultaneous interval": percent(together, sweeps),
        }


def percent(share: float, sweeps: int) -> str:
    """Return a share of a number of sweeps in percent, with its standard error."""
    error = math.sqrt(share * (1 - share) / sweeps)
    return f"{100 * share:.1f} ({100 * error:.1f})"
