"""The verdict on a claim, from the tests of its contrasts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.claims.claim import NEGATED, Claim
from analysis.claims.contrast import Contrast
from analysis.claims.one_sided import ALPHA, OneSided, floor, within
from analysis.statistics import SMALLEST, Floats, below_zero, normality, sign_flip

Verdict = Literal["SUPPORTED", "NOT SUPPORTED", "UNDERPOWERED"]


@dataclass(frozen=True)
class Noise:
    """Whether differences meet the assumptions of the t-test: a spread, and normality."""

    p_normal: float  # of Shapiro and Wilk's test of all contrasts together
    flat: tuple[bool, ...]  # contrasts with no more spread than rounding makes

    @staticmethod
    def of(contrasts: Sequence[Contrast]) -> Noise:
        """Test the differences.

        Rounded values are never normal, because some of them are equal. So each loss is moved to a
        random value that would be rounded to it.
        """
        chance = np.random.default_rng(0)
        flat, samples = [], []
        for contrast in contrasts:
            spread = contrast.differences.std(ddof=1) if len(contrast.seeds) > 1 else math.inf
            flat.append(bool(spread <= floor(contrast)))
            moved = chance.uniform(-0.5, 0.5, contrast.losses.shape) * contrast.resolution
            samples.append((contrast.losses + moved) @ contrast.weights)
        return Noise(
            normality([x for x, no_spread in zip(samples, flat, strict=True) if not no_spread]),
            tuple(flat),
        )

    @property
    def is_normal(self) -> bool:
        """True if the differences look normal."""
        return self.p_normal >= ALPHA

    @property
    def is_good(self) -> bool:
        """True if the t-test decides alone, everywhere."""
        return self.is_normal and not any(self.flat)

    def doubted(self, index: int) -> bool:
        """Return whether the sign-flip test has to agree on a contrast."""
        return self.flat[index] or not self.is_normal


@dataclass(frozen=True)
class Decision:
    """A verdict, with the tests that decide it."""

    verdict: Verdict
    supports: float  # p-value of the test whose rejection supports the claim
    refutes: float  # of the test whose rejection contradicts it
    weakest: int | None  # index of the contrast that decides
    noise: Noise
    among: int = 1  # claims of which this one was chosen by the same losses


def decide(claim: Claim, contrasts: Sequence[Contrast], among: int = 1) -> Decision:
    """Return the verdict on a claim that all contrasts support (or not all: `not in every cell`).

    For support by all of them, the largest p-value decides without correction (intersection-union
    test). For contradiction by one of several, p-values are corrected by Holm. A difference that is
    better by less than the margin contradicts a claim that holds in every cell or on average, and
    does not support it. For `not in every cell`, only a difference of the other sign counts.

    Args:
        claim: to be judged.
        contrasts: that decide.
        among: number of such claims, of which the one with most support counts. Each has to pass at
            5 % / among (Bonferroni): `supports` times `among` is compared with 5 %.
    """
    noise = Noise.of(contrasts)
    if not contrasts:
        return Decision("UNDERPOWERED", 1.0, 1.0, None, noise)
    negated = claim.holds == NEGATED
    favour, against = p_for(claim, contrasts, noise), p_against(claim, contrasts, noise)
    all_hold = min(1.0, among * float(favour.max()))
    one_fails = float(min(1, len(contrasts) * against.min()))  # Holm's first step
    supports, refutes = (one_fails, all_hold) if negated else (all_hold, one_fails)
    verdict: Verdict = "UNDERPOWERED"
    if refutes < ALPHA:
        verdict = "NOT SUPPORTED"
    elif supports < ALPHA:
        verdict = "SUPPORTED"
    weakest = _weakest(claim, contrasts, -against if negated else favour)
    return Decision(verdict, supports, refutes, weakest, noise, among)


def _weakest(claim: Claim, contrasts: Sequence[Contrast], evidence: Floats) -> int | None:
    """Return the contrast with the largest p-value; where tests cannot tell, decide by means."""
    measured = [i for i, contrast in enumerate(contrasts) if len(contrast.seeds)]
    keys = {i: (evidence[i], claim.distance(contrasts[i])) for i in measured}
    return max(measured, key=keys.__getitem__, default=None)


def p_for(claim: Claim, contrasts: Sequence[Contrast], noise: Noise) -> Floats:
    """Return the p-values of the tests whose rejection says that a contrast supports the claim.

    A contrast that lost a pair decides nothing, also in `p_against`: trials do not fail by chance.
    """
    tests = [claim.tests_for(contrast) for contrast in contrasts]
    p_values = np.max(_p_values(contrasts, tests, noise), axis=0)
    further = [claim.further_p_value(contrast) for contrast in contrasts]
    return _of_whole(contrasts, np.maximum(p_values, further))


def p_against(claim: Claim, contrasts: Sequence[Contrast], noise: Noise) -> Floats:
    """Return the p-values of the tests whose rejection says that a contrast contradicts a claim."""
    tests = [claim.tests_against(contrast) for contrast in contrasts]
    p_values = _p_values(contrasts, tests, noise)
    return _of_whole(contrasts, np.minimum(1.0, len(p_values) * np.min(p_values, axis=0)))


def p_equal(claim: Claim, contrasts: Sequence[Contrast]) -> Floats:
    """Return the p-values of the t-tests that a mean difference is less than the margin."""
    tests = [within(claim.margin, contrast) for contrast in contrasts]
    return np.asarray(np.max(_p_values(contrasts, tests, noise=None), axis=0))


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
    contrasts: Sequence[Contrast], tests: Sequence[Sequence[OneSided]], noise: Noise | None
) -> Floats:
    """Return the p-value of each test (test, contrast).

    If the noise may not be normal, it is the larger one of the t-test and the sign-flip test;
    otherwise it is that of the t-test.
    """
    floors = [floor(contrast) for contrast in contrasts]
    if not contrasts:
        return np.ones((1, 0))
    rows = []
    for of_each in zip(*tests, strict=True):
        pairs = zip(contrasts, of_each, strict=True)
        samples = [test.sample(contrast.differences) for contrast, test in pairs]
        p_values = below_zero(samples, floors)
        for i, sample in enumerate(samples):
            if noise and noise.doubted(i):
                p_values[i] = max(p_values[i], sign_flip(sample))
        rows.append(p_values)
    return np.array(rows)


def _of_whole(contrasts: Sequence[Contrast], p_values: Floats) -> Floats:
    p_values = np.where([contrast.lost > 0 for contrast in contrasts], 1.0, p_values)
    return np.maximum(p_values, SMALLEST)
