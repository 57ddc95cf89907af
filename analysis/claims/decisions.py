"""A verdict on the contrasts of a claim: which tests there are, and what they come to together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.claims.claim import Claim
from analysis.claims.contrasts import Contrast
from analysis.statistics import (
    ROUNDING,
    SMALLEST,
    Floats,
    below_zero,
    normality,
    page_trend,
    sign_flip,
)

ALPHA = 0.05
NEGATED = "not in every cell"
Verdict = Literal["SUPPORTED", "NOT SUPPORTED", "UNDERPOWERED"]


@dataclass(frozen=True)
class OneSided:
    """A one-sided test, whose rejection says that sign * mean + offset is below zero."""

    sign: int
    offset: float  # nats

    def sample(self, differences: Floats) -> Floats:
        """The values whose mean should be below zero."""
        return self.sign * differences + self.offset


def tests_for(claim: Claim, contrast: Contrast) -> list[OneSided]:
    """The tests that all have to reject for a contrast to support the claim.

    Each allows for what the losses were rounded by.
    """
    if claim.equal is not None:
        return _tests_equal(claim, contrast)
    return [OneSided(1, contrast.rounding)]


def _tests_equal(claim: Claim, contrast: Contrast) -> list[OneSided]:
    """The tests that a mean difference is within the margin on either side (Schuirmann 1987)."""
    room = claim.margin - contrast.rounding
    return [OneSided(1, -room), OneSided(-1, -room)]


def tests_against(claim: Claim, contrast: Contrast) -> list[OneSided]:
    """The tests of which one has to reject for a contrast to contradict the claim.

    A difference that is better by less than the margin contradicts; where the claim says that it
    does not hold in every cell, only one of the other sign does.
    """
    if claim.equal is not None:
        room = claim.margin + contrast.rounding
        return [OneSided(-1, room), OneSided(1, room)]
    margin = 0.0 if claim.holds == NEGATED else claim.margin
    return [OneSided(-1, contrast.rounding - margin)]


@dataclass(frozen=True)
class Noise:
    """Whether the t-test has what it takes: values that have a spread and look normal."""

    p_normal: float  # of Shapiro and Wilk's test of all contrasts together
    flat: tuple[bool, ...]  # contrasts with no more spread than rounding makes

    @staticmethod
    def of(contrasts: Sequence[Contrast]) -> Noise:
        """Test the differences.

        Rounded values are never normal, as some of them are equal, so their losses are moved to
        random places of what was rounded to them.
        """
        chance = np.random.default_rng(0)
        flat, samples = [], []
        for each in contrasts:
            spread = each.differences.std(ddof=1) if len(each.seeds) > 1 else math.inf
            flat.append(bool(spread <= floor(each)))
            moved = chance.uniform(-0.5, 0.5, each.losses.shape) * each.resolution
            samples.append((each.losses + moved) @ each.weights)
        return Noise(
            normality([x for x, no_spread in zip(samples, flat, strict=True) if not no_spread]),
            tuple(flat),
        )

    @property
    def is_normal(self) -> bool:
        return self.p_normal >= ALPHA

    @property
    def is_good(self) -> bool:
        """Whether the t-test decides alone, everywhere."""
        return self.is_normal and not any(self.flat)

    def doubted(self, index: int) -> bool:
        """Whether the sign-flip test has to agree on a contrast."""
        return self.flat[index] or not self.is_normal


@dataclass(frozen=True)
class Decision:
    """A verdict and what it rests on."""

    verdict: Verdict
    supports: float  # p-value of the test whose rejection supports the claim
    refutes: float  # of the one whose rejection contradicts it
    weakest: int | None  # the contrast that decides, of those that were given
    noise: Noise
    among: int = 1  # claims of which this one was chosen by the same losses


def decide(claim: Claim, contrasts: Sequence[Contrast], among: int = 1) -> Decision:
    """The verdict on contrasts that all have to bear a claim out (or not, if it says so).

    All of them is an intersection-union test: the largest p-value decides, without correction. That
    one of several contradicts is corrected by Holm. In a claim that holds in every cell or on
    average, a difference that is better by less than the margin contradicts, and is no support
    either; for one that does not hold in every cell only a difference of the other sign counts.

    Args:
        claim: what is said.
        contrasts: that decide.
        among: how many such claims there are, of which the one with most support counts: each has
            to pass at 5 % / among (Bonferroni), as `supports` times among at 5 %.
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
    # The one with the least evidence for all, or the most against; if tests cannot tell, by means.
    evidence = -against if negated else favour
    measured = [i for i, contrast in enumerate(contrasts) if len(contrast.seeds)]
    keys = {i: (evidence[i], badness(claim, contrasts[i])) for i in measured}
    weakest = max(measured, key=keys.__getitem__, default=None)
    return Decision(verdict, supports, refutes, weakest, noise, among)


def p_for(claim: Claim, contrasts: Sequence[Contrast], noise: Noise) -> Floats:
    """The p-values of the tests whose rejection says that a contrast supports the claim.

    A contrast that lost a pair decides nothing, here and below: what fails does not fail by chance.
    """
    p_values = np.max(_p_values(contrasts, [tests_for(claim, c) for c in contrasts], noise), axis=0)
    for i, contrast in enumerate(contrasts):
        if contrast.levels is not None:
            p_values[i] = max(p_values[i], page_trend(contrast.levels))
    return _of_whole(contrasts, p_values)


def p_against(claim: Claim, contrasts: Sequence[Contrast], noise: Noise) -> Floats:
    """The p-values of the tests whose rejection says that a contrast contradicts the claim."""
    p_values = _p_values(contrasts, [tests_against(claim, c) for c in contrasts], noise)
    return _of_whole(contrasts, np.minimum(1.0, len(p_values) * np.min(p_values, axis=0)))


def p_equal(claim: Claim, contrasts: Sequence[Contrast]) -> Floats:
    """The p-values of the t-tests that a mean difference is less than the margin."""
    tests = [_tests_equal(claim, contrast) for contrast in contrasts]
    return np.asarray(np.max(_p_values(contrasts, tests, noise=None), axis=0))


def floor(contrast: Contrast) -> float:
    """The least standard deviation of its differences: that of the error of rounding (uniform)."""
    step = max(contrast.resolution, ROUNDING)
    return step * math.sqrt(float((contrast.weights**2).sum()) / 12)


def badness(claim: Claim, contrast: Contrast) -> float:
    """Distance of the mean difference from supporting the claim; negative where it does."""
    if claim.equal is not None:
        return abs(contrast.mean) - claim.margin
    return contrast.mean


def averages(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The mean over cells of each kind of contrast, by the seeds that all its cells have."""
    by_kind = defaultdict(list)
    for contrast in contrasts:
        by_kind[contrast.what].append(contrast)
    return [_average(kind) for kind in by_kind.values()]


def _average(kind: Sequence[Contrast]) -> Contrast:
    seeds = sorted(set.intersection(*(set(each.seeds) for each in kind)))
    losses = [each.losses[[each.seeds.index(seed) for seed in seeds]] for each in kind]
    weights, resolution = kind[0].weights, kind[0].resolution
    if len({len(each.weights) for each in kind}) > 1:  # lines through few and many levels
        pairs = zip(kind, losses, strict=True)
        weights, losses = np.ones(1), [(some @ each.weights)[:, None] for each, some in pairs]
        resolution = 2 * max(each.rounding for each in kind)
    return replace(
        kind[0],
        cell=f"the mean over {len(kind)} cells",
        seeds=tuple(seeds),
        losses=np.mean(losses, axis=0),
        weights=weights,
        resolution=resolution,
        lost=sum(each.lost for each in kind),
        run_ids=tuple(run_id for each in kind for run_id in each.run_ids),
    )


def _p_values(
    contrasts: Sequence[Contrast], tests: Sequence[Sequence[OneSided]], noise: Noise | None
) -> Floats:
    """The p-value of each test (test, contrast).

    Where the noise is in doubt it is the larger one of the t-test and the sign-flip test. Without
    noise it is that of the t-test.
    """
    floors = [floor(contrast) for contrast in contrasts]
    if not contrasts:
        return np.ones((1, 0))
    rows = []
    for one in zip(*tests, strict=True):
        pairs = zip(contrasts, one, strict=True)
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
