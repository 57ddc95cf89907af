"""One-sided tests of a mean difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.claims.contrast import Contrast
from analysis.statistics import ROUNDING, Floats

ALPHA = 0.05


@dataclass(frozen=True)
class OneSided:
    """A one-sided test, whose rejection says that sign * mean + offset is below zero."""

    sign: int
    offset: float  # nats

    def sample(self, differences: Floats) -> Floats:
        """Return the values whose mean should be below zero."""
        return self.sign * differences + self.offset


def within(margin: float, contrast: Contrast) -> list[OneSided]:
    """Return the two tests that show a mean difference to be within the margin (Schuirmann 1987).

    Both have to reject. They allow for what the losses were rounded by.
    """
    room = margin - contrast.rounding
    return [OneSided(1, -room), OneSided(-1, -room)]


def beyond(margin: float, contrast: Contrast) -> list[OneSided]:
    """Return the two tests of which one shows a mean difference to be beyond the margin."""
    room = margin + contrast.rounding
    return [OneSided(-1, room), OneSided(1, room)]


def floor(contrast: Contrast) -> float:
    """Return the least standard deviation of differences, in nats: that of rounding (uniform)."""
    step = max(contrast.resolution, ROUNDING)
    return step * math.sqrt(float((contrast.weights**2).sum()) / 12)
