"""Whether differences meet the assumptions of the t-test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.claims.contrast import Contrast
from analysis.claims.one_sided import ALPHA, floor
from analysis.statistics import normality


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
