"""How often verdicts are wrong: synthetic sweeps with a known truth, from a file to the verdict.

Each claim is judged where that is hardest: at the edge of its truth, all else beyond doubt.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analysis.claims.forecast import chances
from benchmarks.edges import EDGES, EVERY, REFUTED, SUPPORTED, Edge, by_truth
from benchmarks.measuring import Asked, print_section, print_table
from benchmarks.synthetic import NOISES, SKEWED, SYMMETRIC, Design, Means, Noise, Truth, conclusions

SWEEPS, SWEEPS_QUICK = 1_000, 2
SEEDS, MORE_SEEDS = 5, 10  # of each configuration
CELLS, CELLS_QUICK = (12, 24, 36), (3,)  # of which the weakest decides
CHANCE = 17  # seed of all that is drawn
ABOUT = """\
Shares of {sweeps} sweeps in percent (and their standard errors); n seeds. Noise that is not said to
be of both arms is of the one that looks better; the other has normal noise, or none ("alone")."""

TESTS = ("order", "trend", "equal")  # the forms whose tests differ
PAIR = {"factor": "size", "order": [2, 1]}
SAME = {"factor": "size", "equal": [2, 1]}
FALLING = {"factor": "size", "trend": "falling"}
NOT_EVERY = {"holds": "not in every cell"}
CASES: Sequence[tuple[Mapping[str, Any], Means, float, int]] = (  # the spread of differences; seeds
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
    edges: Sequence[Edge], noise: Noise, seeds: int, sweeps: int, chance: np.random.Generator
) -> list[float]:
    """In what share of sweeps each claim, all of the same truth, gets the verdict that is wrong."""
    design = Design(edges[0].truth, noise, seeds)
    wrong = np.zeros(len(edges))
    claims = [edge.claim for edge in edges]
    for found in conclusions(claims, design.sweeps(sweeps, chance)):
        wrong += [each.verdict == edge.wrong for each, edge in zip(found, edges, strict=True)]
    return [float(share) for share in wrong / sweeps]


def run(asked: Asked) -> None:
    sweeps = asked.sweeps or (SWEEPS_QUICK if asked.is_quick else SWEEPS)
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
    print_table(_coverage(CELLS_QUICK if asked.is_quick else CELLS, sweeps, coverage))


def _errors(
    edges: Sequence[Edge],
    noises: Mapping[str, Noise],
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
            found = {name: percent(shares[row], sweeps) for name, shares in columns.items()}
            yield {
                "claim": edge.form,
                "holds": edge.holds,
                "wrong": edge.wrong,
                "n": seeds,
                **found,
            }


def _forecasts(sweeps: int, chance: np.random.Generator) -> Rows:
    """What is forecast where the margin rule or Page's test decides, beside what comes of it."""
    for claim, means, spread, seeds in CASES:
        design = Design(Truth(means), NOISES["normal"], seeds, spread / math.sqrt(2))
        ((typical,),) = conclusions([claim], [design.typical(chance)])
        expected = chances(typical.claim, typical.basis, seeds)
        found = conclusions([claim], design.sweeps(sweeps, chance))
        counts = Counter(each.verdict for (each,) in found)
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
    """How often the interval of the cell that decides, the extreme of many, has its difference.

    Where no cell has one, the extreme is that with the most luck.
    """
    for number, seeds in itertools.product(cells, (SEEDS, MORE_SEEDS)):
        design = Design(Truth(((0, 0),) * number), NOISES["normal"], seeds)
        inside = np.zeros(2)
        for (each,) in conclusions([PAIR], design.sweeps(sweeps, chance)):
            inside += [one.low <= 0 <= one.high for one in (each.effect, each.simultaneous)]
        alone, together = inside / sweeps
        yield {
            "cells": number,
            "n": seeds,
            "interval by itself": percent(alone, sweeps),
            "simultaneous interval": percent(together, sweeps),
        }


def percent(share: float, sweeps: int) -> str:
    """A share of so many sweeps, with its standard error."""
    error = math.sqrt(share * (1 - share) / sweeps)
    return f"{100 * share:.1f} ({100 * error:.1f})"
