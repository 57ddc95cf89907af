"""How often verdicts are wrong: synthetic sweeps with a known truth, from a file to the verdict.

Each claim is judged where that is hardest: at the edge of its truth, all else beyond doubt.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import torch

from analysis.conclusions import Verdict
from benchmarks.edges import CLEAR, EDGES, SUPPORTED, Edge, by_truth
from benchmarks.measuring import Asked, print_section, print_table
from benchmarks.synthetic import NOISES, SKEWED, SYMMETRIC, Design, Noise, Truth, conclusions

SWEEPS, SWEEPS_QUICK = 1_000, 4
SEEDS, MORE_SEEDS, MOST_SEEDS = 5, 10, 20  # of each configuration
CELLS, CELLS_QUICK = (12, 24, 36), (3,)  # of which the weakest decides
CHANCE = 17  # seed of all that is drawn
ABOUT = """\
Shares of {sweeps} sweeps in percent (and their standard errors). Noise is named with the arms that
have it, the better one beside a normal one unless it says both; n seeds."""

SMALL = 0.0015  # nats; less than the margin

TESTS = ("order", "trend", "equal")  # the forms whose tests differ
PAIR = {"factor": "size", "order": [2, 1]}

Rows = Iterator[Mapping[str, object]]


def wrong_shares(
    edges: Sequence[Edge], noise: Noise, seeds: int, sweeps: int, chance: np.random.Generator
) -> list[float]:
    """In what share of sweeps each claim, all of the same truth, gets the verdict that is wrong."""
    design = Design(edges[0].truth, noise, seeds)
    wrong = np.zeros(len(edges))
    for found in conclusions([edge.claim for edge in edges], design, sweeps, chance):
        wrong += [each.verdict == edge.wrong for each, edge in zip(found, edges, strict=True)]
    return [float(share) for share in wrong / sweeps]


def run(asked: Asked) -> None:
    sweeps = asked.sweeps or (SWEEPS_QUICK if asked.is_quick else SWEEPS)
    print_section("verdicts", ABOUT.format(sweeps=sweeps), torch.device("cpu"))
    chance = np.random.default_rng(CHANCE)
    tested = [edge for edge in EDGES if edge.form in TESTS]
    ordered = [edge for edge in EDGES if edge.form == "order" and edge.wrong == SUPPORTED]
    print_table(_errors(EDGES, SYMMETRIC, SEEDS, sweeps, chance))
    print_table(_errors(tested, SKEWED, SEEDS, sweeps, chance))
    print_table(_errors(ordered, NOISES, MORE_SEEDS, sweeps, chance))
    print_table(_below_the_margin(sweeps, chance))
    print_table(_coverage(CELLS_QUICK if asked.is_quick else CELLS, sweeps, chance))


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


def _below_the_margin(sweeps: int, chance: np.random.Generator) -> Rows:
    """What is better by less than the margin, and with little noise."""
    truth = Truth(((SMALL, 0),))
    for seeds in (SEEDS, MORE_SEEDS, MOST_SEEDS):
        design = Design(truth, NOISES["normal"], seeds, SMALL / math.sqrt(2))
        found = conclusions([PAIR], design, sweeps, chance)
        counts = Counter(each.verdict for (each,) in found)
        shares = {
            verdict: percent(counts[verdict] / sweeps, sweeps) for verdict in get_args(Verdict)
        }
        yield {"difference": -SMALL, "its spread": SMALL, "n": seeds, **shares}


def _coverage(cells: Sequence[int], sweeps: int, chance: np.random.Generator) -> Rows:
    """How often the interval of the cell that decides, the extreme of many, has its difference."""
    for number, seeds in itertools.product(cells, (SEEDS, MORE_SEEDS)):
        design = Design(Truth(((CLEAR, 0),) * number), NOISES["normal"], seeds)
        found = conclusions([PAIR], design, sweeps, chance)
        inside = sum(each.effect.low <= -CLEAR <= each.effect.high for (each,) in found)
        yield {"cells": number, "n": seeds, "coverage": percent(inside / sweeps, sweeps)}


def percent(share: float, sweeps: int) -> str:
    """A share of so many sweeps, with its standard error."""
    error = math.sqrt(share * (1 - share) / sweeps)
    return f"{100 * share:.1f} ({100 * error:.1f})"
