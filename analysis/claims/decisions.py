"""The verdict on a claim, from the tests of its contrasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from analysis.claims.claim import NEGATED, Claim
from analysis.claims.contrast import Contrast
from analysis.claims.noise import Noise
from analysis.claims.one_sided import OneSided, within
from analysis.claims.procedures import FIXED_NUMBER, Procedure
from analysis.statistics import SMALLEST, Floats, sign_flip

Verdict = Literal["SUPPORTED", "NOT SUPPORTED", "UNDERPOWERED"]


def _none() -> Floats:
    return np.ones(0)


@dataclass(frozen=True)
class Decision:
    """A verdict, with the tests that decide it."""

    verdict: Verdict
    supports: float  # p-value of the test whose rejection supports the claim
    refutes: float  # of the test whose rejection contradicts it
    weakest: int | None  # index of the contrast that decides
    noise: Noise
    among: int = 1  # claims of which this one was chosen by the same losses
    procedure: Procedure = FIXED_NUMBER
    favour: Floats = field(default_factory=_none, compare=False)  # of each contrast, as by `p_for`
    against: Floats = field(default_factory=_none, compare=False)  # as by `p_against`


def decide(
    claim: Claim,
    contrasts: Sequence[Contrast],
    among: int = 1,
    procedure: Procedure = FIXED_NUMBER,
) -> Decision:
    """Return the verdict on a claim that all contrasts support (or not all: `not in every cell`).

    For support by all of them, the largest p-value decides without correction (intersection-union
    test). For contradiction by one of several, p-values are corrected by Holm. A difference that is
    better by less than the margin contradicts a claim that holds in every cell or on average, and
    does not support it. For `not in every cell`, only a difference of the other sign counts.

    Args:
        claim: to be judged.
        contrasts: that decide.
        among: number of such claims, of which the one with most support counts. Each has to pass at
            error / among (Bonferroni): `supports` times `among` is compared with the error.
        procedure: the tests.
    """
    noise = Noise.of(contrasts)
    if not contrasts:
        return Decision("UNDERPOWERED", 1.0, 1.0, None, noise, procedure=procedure)
    negated = claim.holds == NEGATED
    favour = p_for(claim, contrasts, noise, procedure)
    against = p_against(claim, contrasts, noise, procedure)
    all_hold = min(1.0, among * float(favour.max()))
    one_fails = float(min(1, len(contrasts) * against.min()))  # Holm's first step
    supports, refutes = (one_fails, all_hold) if negated else (all_hold, one_fails)
    verdict = verdict_of(supports, refutes, procedure.error)
    weakest = _weakest(claim, contrasts, -against if negated else favour)
    return Decision(verdict, supports, refutes, weakest, noise, among, procedure, favour, against)


def verdict_of(supports: float, refutes: float, error: float) -> Verdict:
    """Return the verdict by two p-values; where there is evidence for both, NOT SUPPORTED."""
    if refutes < error:
        return "NOT SUPPORTED"
    return "SUPPORTED" if supports < error else "UNDERPOWERED"


def _weakest(claim: Claim, contrasts: Sequence[Contrast], evidence: Floats) -> int | None:
    """Return the contrast with the largest p-value; where tests cannot tell, decide by means."""
    measured = [i for i, contrast in enumerate(contrasts) if len(contrast.seeds)]
    keys = {i: (evidence[i], claim.distance(contrasts[i])) for i in measured}
    return max(measured, key=keys.__getitem__, default=None)


def p_for(
    claim: Claim, contrasts: Sequence[Contrast], noise: Noise, procedure: Procedure
) -> Floats:
    """Return the p-values of the tests whose rejection says that a contrast supports the claim.

    A contrast that lost a pair decides nothing, also in `p_against`: trials do not fail by chance.
    """
    tests = [claim.tests_for(contrast) for contrast in contrasts]
    p_values = np.max(_p_values(contrasts, tests, noise, procedure), axis=0)
    further = [claim.further_p_value(contrast, procedure) for contrast in contrasts]
    return _of_whole(contrasts, np.maximum(p_values, further))


def p_against(
    claim: Claim, contrasts: Sequence[Contrast], noise: Noise, procedure: Procedure
) -> Floats:
    """Return the p-values of the tests whose rejection says that a contrast contradicts a claim."""
    tests = [claim.tests_against(contrast) for contrast in contrasts]
    p_values = _p_values(contrasts, tests, noise, procedure)
    return _of_whole(contrasts, np.minimum(1.0, len(p_values) * np.min(p_values, axis=0)))


def p_equal(claim: Claim, contrasts: Sequence[Contrast], procedure: Procedure) -> Floats:
    """Return the p-values of the tests that a mean difference is less than the margin."""
    tests = [within(claim.margin, contrast) for contrast in contrasts]
    return np.asarray(np.max(_p_values(contrasts, tests, None, procedure), axis=0))


def p_signs(claim: Claim, contrast: Contrast) -> float:
    """Return the p-value of the sign-flip tests that correspond to the t-tests that decide."""
    is_negated = claim.holds == NEGATED
    tests = claim.tests_against(contrast) if is_negated else claim.tests_for(contrast)
    p_values = [sign_flip(test.sample(contrast.differences)) for test in tests]
    return min(1.0, len(p_values) * min(p_values)) if is_negated else max(p_values)


def averages(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Return the mean over cells of each kind of contrast, by the seeds that all its cells have."""
    by_kind = defaultdict(list)
    for contrast in contrasts:
        by_kind[contrast.what].append(contrast)
    return [_average(kind) for kind in by_kind.values()]


def _average(kind: Sequence[Contrast]) -> Contrast:
    seeds = sorted(set.intersection(*(set(contrast.seeds) for contrast in kind)))
    losses = [contrast.losses[[contrast.seeds.index(seed) for seed in seeds]] for contrast in kind]
    weights, resolution = kind[0].weights, kind[0].resolution
    if len({len(contrast.weights) for contrast in kind}) > 1:  # lines through few and many levels
        pairs = zip(kind, losses, strict=True)
        losses = [(some @ contrast.weights)[:, None] for contrast, some in pairs]
        weights, resolution = np.ones(1), 2 * max(contrast.rounding for contrast in kind)
    return replace(
        kind[0],
        cell=f"the mean over {len(kind)} cells",
        seeds=tuple(seeds),
        losses=np.mean(losses, axis=0),
        weights=weights,
        resolution=resolution,
        lost=sum(contrast.lost for contrast in kind),
        run_ids=tuple(run_id for contrast in kind for run_id in contrast.run_ids),
    )


def _p_values(
    contrasts: Sequence[Contrast],
    tests: Sequence[Sequence[OneSided]],
    noise: Noise | None,
    procedure: Procedure,
) -> Floats:
    """Return the p-value of each test (test, contrast)."""
    if not contrasts:
        return np.ones((1, 0))
    of_each = zip(*tests, strict=True)
    return np.array([procedure.p_values(contrasts, each, noise) for each in of_each])


def _of_whole(contrasts: Sequence[Contrast], p_values: Floats) -> Floats:
    p_values = np.where([contrast.lost > 0 for contrast in contrasts], 1.0, p_values)
    return np.maximum(p_values, SMALLEST)
