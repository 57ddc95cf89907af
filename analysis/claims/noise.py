"""Whether differences meet the assumptions of the t-test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from analysis.claims.contrast import Contrast
from analysis.claims.one_sided import ALPHA, floor
from analysis.statistics import normality


@dataclass(frozen=True)
class Noise:
    """Whether differences meet the assumptions of the t-test: a spread, and normality.

    It is found at the first use: tests that hold at any look do not ask.
    """

    contrasts: tuple[Contrast, ...] = field(repr=False, compare=False)

    @staticmethod
    def of(contrasts: Sequence[Contrast]) -> Noise:
        """Return the noise of contrasts."""
        return Noise(tuple(contrasts))

    @cached_property
    def flat(self) -> tuple[bool, ...]:
        """For each contrast, whether it has no more spread than rounding makes."""
        return tuple(
            len(contrast.seeds) > 1 and bool(contrast.differences.std(ddof=1) <= floor(contrast))
            for contrast in self.contrasts
        )

    @cached_property
    def p_normal(self) -> float:
        """The p-value of Shapiro and Wilk's test of all contrasts together.

        Rounded values are never normal, because some of them are equal. So each loss is moved to a
        random value that would be rounded to it.
        """
        chance = np.random.default_rng(0)
        samples = []
        for contrast, no_spread in zip(self.contrasts, self.flat, strict=True):
            moved = chance.uniform(-0.5, 0.5, contrast.losses.shape) * contrast.resolution
            if not no_spread:
                samples.append((contrast.losses + moved) @ contrast.weights)
        return normality(samples)

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
