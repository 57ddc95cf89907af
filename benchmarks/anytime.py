"""How often verdicts are wrong that one looks at after each seed, and what they cost in seeds.

Each claim is tested where that is hardest: at the edge of its truth, with all else clear. A verdict
at any look is at least as often wrong as one that a sweep stops at, so the rates are upper bounds.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from analysis import load_claims, load_trials
from analysis.anytime import log_e_below_zero, log_e_bounded
from analysis.claims.claim import MARGIN, Claim
from analysis.claims.conclusions import conclude
from analysis.claims.contrast import Contrast
from analysis.claims.contrasts import contrasts_of
from analysis.claims.decisions import Verdict
from analysis.claims.procedures import Anytime
from analysis.statistics import ROUNDING
from benchmarks.edges import EDGES, REFUTED, SUPPORTED, by_truth
from benchmarks.measuring import BenchmarkOptions, print_section, print_table
from benchmarks.synthetic import (
    SKEWED,
    SPREAD,
    SYMMETRIC,
    Design,
    Floats,
    NoiseModel,
    Truth,
    write_sweep,
)
from benchmarks.verdicts import percent

SWEEPS, SWEEPS_QUICK = 2_000, 2
LOOKS, LOOKS_QUICK = 50, 6  # one after each seed
ERROR = 0.05
BOUND = 0.2  # nats: no pair differs by more, for the bounded test
CHANCE = 18  # seed of all random numbers
SKEWED_TRUTHS: Mapping[Verdict, Truth] = {  # the noise is of the level that would look better
    SUPPORTED: Truth(((0, 0),), frozenset({1})),
    REFUTED: Truth(((MARGIN, 0),), frozenset({0})),
}
EFFECTS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)  # mean / standard deviation of a difference
POWER, MOST_SEEDS = 0.8, 1_000
ABOUT = """\
Shares of {sweeps} sweeps in percent (and their standard errors) that have the wrong verdict at any
of {looks} looks, one after each seed. Noise is of the arm that looks better, unless it is of both;
the other arm has normal noise, or none ("alone"). "bounded" takes no pair to differ by more than
{bound} nats."""

Rows = Iterator[Mapping[str, object]]


def wrong_at_any_look(
    truth: Truth,
    wrong: Sequence[tuple[Claim, Verdict]],
    noise: NoiseModel,
    looks: int,
    sweeps: int,
    chance: np.random.Generator,
    bound: float | None = None,
) -> list[float]:
    """Return the share of sweeps in which a look gives each claim the wrong verdict.

    Args:
        truth: of the sweeps.
        wrong: claims, each with the verdict that is wrong.
        noise: of the losses.
        looks: one after each seed.
        sweeps: that are drawn.
        chance: draws them.
        bound: of differences, in nats; None takes the t test.
    """
    procedure, design = Anytime(ERROR, bound), Design(truth, noise, looks)
    shape = len(truth.means), len(truth.means[0]), looks
    templates = [_places(claim, shape) for claim, _ in wrong]
    counts = np.zeros(len(wrong))
    for losses in design.sweeps(sweeps, chance):
        flat = losses.ravel()
        for row, (claim, verdict) in enumerate(wrong):
            contrasts = [replace(each, losses=flat[at]) for each, at in templates[row]]
            decision = conclude(claim, contrasts, procedure).decision
            p = decision.supports if verdict == SUPPORTED else decision.refutes
            counts[row] += p < ERROR
    return [float(share) for share in counts / sweeps]


def _places(
    claim: Claim, shape: tuple[int, int, int]
) -> list[tuple[Contrast, npt.NDArray[np.int64]]]:
    """Return the contrasts of a claim, and where their losses are among those of a sweep.

    They are found once, by the trials of a sweep whose losses are their own places.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trials.csv")
        write_sweep(path, np.arange(math.prod(shape), dtype=float).reshape(shape))
        contrasts = contrasts_of(claim, load_trials(str(path)))
    return [(replace(each, resolution=ROUNDING), each.losses.astype(int)) for each in contrasts]


def run(options: BenchmarkOptions) -> None:
    sweeps = options.sweeps or (SWEEPS_QUICK if options.is_quick else SWEEPS)
    looks = LOOKS_QUICK if options.is_quick else LOOKS
    about = ABOUT.format(sweeps=sweeps, looks=looks, bound=BOUND)
    print_section("anytime", about, torch.device("cpu"))
    symmetric, skewed, price = np.random.default_rng(CHANCE).spawn(3)
    print_table(_symmetric(looks, sweeps, symmetric))
    print_table(_skewed(looks, sweeps, skewed))
    print_table(_price(sweeps, price))


def _symmetric(looks: int, sweeps: int, chance: np.random.Generator) -> Rows:
    for group in by_truth(EDGES):
        wrong = [(_claim(str(edge), edge.claim), edge.wrong) for edge in group]
        columns = {
            name: wrong_at_any_look(group[0].truth, wrong, noise, looks, sweeps, chance)
            for name, noise in SYMMETRIC.items()
        }
        for row, edge in enumerate(group):
            rates = {name: percent(shares[row], sweeps) for name, shares in columns.items()}
            yield {"claim": edge.form, "holds": edge.holds, "wrong": edge.wrong, **rates}


def _skewed(looks: int, sweeps: int, chance: np.random.Generator) -> Rows:
    claim = _claim("2 is better than 1", {"factor": "size", "order": [2, 1]})
    for verdict, truth in SKEWED_TRUTHS.items():
        for name, noise in SKEWED.items():
            t_test, bounded = (
                wrong_at_any_look(truth, [(claim, verdict)], noise, looks, sweeps, chance, bound)[0]
                for bound in (None, BOUND)
            )
            yield {
                "wrong": verdict,
                "noise": name,
                "t test": percent(t_test, sweeps),
                "bounded": percent(bounded, sweeps),
            }


def _claim(name: str, content: Mapping[str, object]) -> Claim:
    (claim,) = load_claims({"claim": name, **content}).claims
    return claim


def _price(sweeps: int, chance: np.random.Generator) -> Rows:
    """Compare the seeds until a true difference is shown with those of a test at one look."""
    for effect in EFFECTS:
        mean = -effect * SPREAD
        drawn = chance.normal(mean, SPREAD, (sweeps, MOST_SEEDS))
        until = _first(log_e_below_zero(drawn))
        bounded = _first(log_e_bounded(drawn, BOUND))
        yield {
            "mean / standard deviation": effect,
            "one look, power 80 %": _fixed(effect),
            "any look: median": int(np.median(until)),
            "mean": float(np.mean(until)),
            "80 % of sweeps by": int(np.quantile(until, POWER)),
            "bounded: median": int(np.median(bounded)),
        }


def _first(log_e: Floats) -> Floats:
    rejects = log_e >= -np.log(ERROR)
    return np.where(rejects.any(axis=1), rejects.argmax(axis=1) + 1, MOST_SEEDS)


def _fixed(effect: float) -> int:
    """Return the seeds with which a one-sided t-test has this power."""
    for seeds in range(2, MOST_SEEDS):
        edge = stats.t.ppf(1 - ERROR, seeds - 1)
        if stats.nct.sf(edge, seeds - 1, effect * seeds**0.5) >= POWER:
            return seeds
    return MOST_SEEDS
