"""How differences are tested: at one look, or at any.

FixedNumber   tests for one look at a number of seeds that was fixed beforehand
Anytime       tests that hold however often one looks, and whenever one stops
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analysis.anytime import (
    NOTHING,
    Residuals,
    log_e_below_zero,
    log_e_bounded,
    log_e_order,
    p_value,
    p_values,
    upper_limit,
)
from analysis.claims.borrowing import residuals_of_others
from analysis.claims.contrast import Contrast
from analysis.claims.noise import Noise
from analysis.claims.one_sided import ALPHA, OneSided, floor
from analysis.moderated import moderated_below_zero, moderated_intervals
from analysis.statistics import (
    SMALLEST,
    Floats,
    Interval,
    below_zero,
    page_trend,
    sign_flip,
    t_intervals,
)


@dataclass(frozen=True)
class Procedure(ABC):
    """A kind of tests, with the share of sweeps in which a verdict may be wrong."""

    is_anytime: ClassVar[bool]
    error: float = ALPHA

    @property
    def confidence(self) -> float:
        """Confidence of intervals, whose ends are those of the one-sided tests."""
        return 1 - 2 * self.error

    @abstractmethod
    def counted(self, contrast: Contrast) -> Contrast:
        """Return a contrast with only the pairs that count."""

    @abstractmethod
    def p_values(
        self, contrasts: Sequence[Contrast], tests: Sequence[OneSided], noise: Noise | None
    ) -> Floats:
        """Test the mean difference of each contrast; return a p-value for each.

        Args:
            contrasts: whose differences are tested.
            tests: one for each contrast.
            noise: of the contrasts; None takes it to be normal.
        """

    @abstractmethod
    def p_falling(self, losses: Floats) -> float:
        """Return the p-value of a test that losses (seeds x levels) fall from level to level."""

    @abstractmethod
    def intervals(self, contrasts: Sequence[Contrast], family: float) -> list[Interval]:
        """Return intervals of mean differences.

        Args:
            contrasts: whose means the intervals hold.
            family: number of intervals that all hold at once with `confidence` (Bonferroni).
        """

    def interval(self, contrasts: Sequence[Contrast], index: int, family: float) -> Interval:
        """Return one of these intervals."""
        return self.intervals([contrasts[index]], family)[0]


@dataclass(frozen=True)
class FixedNumber(Procedure):
    """Student's t-test; where noise looks odd, the sign-flip test has to agree.

    It may borrow variances: then each difference of a claim knows something of its variance from
    the others (Smyth 2004), which holds if no variance is far above the rest.
    """

    is_anytime: ClassVar[bool] = False
    borrows: bool = False

    def counted(self, contrast: Contrast) -> Contrast:
        """Return the contrast as it is: one with a lost pair decides nothing."""
        return contrast

    def p_values(
        self, contrasts: Sequence[Contrast], tests: Sequence[OneSided], noise: Noise | None
    ) -> Floats:
        """Return the p-value of the t-test of each contrast."""
        pairs = zip(contrasts, tests, strict=True)
        samples = [test.sample(contrast.differences) for contrast, test in pairs]
        floors = [floor(contrast) for contrast in contrasts]
        if self.borrows:
            p_values = moderated_below_zero(samples, floors).p_values
        else:
            p_values = below_zero(samples, floors)
        for i, sample in enumerate(samples):
            if noise and noise.doubted(i):
                p_values[i] = max(p_values[i], sign_flip(sample))
        return p_values

    def p_falling(self, losses: Floats) -> float:
        """Return the p-value of Page's test."""
        return page_trend(losses)

    def intervals(self, contrasts: Sequence[Contrast], family: float) -> list[Interval]:
        """Return the intervals of the t-tests of mean differences."""
        intervals = moderated_intervals if self.borrows else t_intervals
        return intervals(
            [contrast.differences for contrast in contrasts],
            1 - (1 - self.confidence) / family,
            [contrast.rounding for contrast in contrasts],
            [floor(contrast) for contrast in contrasts],
        )

    def interval(self, contrasts: Sequence[Contrast], index: int, family: float) -> Interval:
        """Return one of these intervals, which may depend on the others."""
        return self.intervals(contrasts, family)[index]


@dataclass(frozen=True)
class Anytime(Procedure):
    """E-values: the t test, or where a bound of differences is given, the bounded test.

    The pairs of a contrast count in the order of their seeds, up to the first that is missing: so
    it makes no difference which trials were quick. The noise plays no part: a test that is chosen
    by the result would not hold.

    The t test may borrow: then each difference knows something of its variance from the others of a
    claim, if all variances are equal (see `analysis.claims.borrowing`).
    """

    is_anytime: ClassVar[bool] = True
    bound: float | None = None  # nats: no difference of a pair is larger
    borrows: bool = False

    def counted(self, contrast: Contrast) -> Contrast:
        """Return the contrast with the pairs before the first missing one."""
        return contrast.leading()

    def p_values(
        self, contrasts: Sequence[Contrast], tests: Sequence[OneSided], noise: Noise | None
    ) -> Floats:
        """Return the p-value of each contrast from its e-values: it holds at any look."""
        others = residuals_of_others(contrasts) if self.borrows else NOTHING
        if others is None:
            return np.ones(len(contrasts))
        seeds = np.array([len(contrast.seeds) for contrast in contrasts], dtype=int)
        samples = np.zeros((len(seeds), seeds.max(initial=0)))  # all at once: a sweep looks often
        for row, contrast, test in zip(samples, contrasts, tests, strict=True):
            row[: len(contrast.seeds)] = test.sample(contrast.differences)
        log_e = self._log_e(samples, contrasts, [test.offset for test in tests], others)
        is_there = np.arange(samples.shape[1]) < seeds[:, None]
        return p_values(np.where(is_there, log_e, -np.inf))

    def log_e_values(self, differences: Floats, test: OneSided, contrast: Contrast) -> Floats:
        """Return the log e-value of a test after each seed, without borrowing.

        Args:
            differences: ... x seeds, in nats.
            test: of their mean.
            contrast: for its rounding and least spread.
        """
        return self._log_e(test.sample(differences), [contrast], [test.offset], NOTHING)

    def _log_e(
        self,
        samples: Floats,
        contrasts: Sequence[Contrast],
        offsets: Sequence[float],
        others: Residuals,
    ) -> Floats:
        """Return the log e-values of samples (... x seeds), of one contrast or one of each."""
        if self.bound is None:
            floors = np.array([[floor(each)] for each in contrasts])
            return log_e_below_zero(samples, floors, others)
        rounding = np.array([each.rounding for each in contrasts])
        room = (self.bound + rounding + offsets)[:, None]
        log_e = log_e_bounded(samples, np.maximum(room, SMALLEST))
        return np.where(room > 0, log_e, np.inf)

    def p_falling(self, losses: Floats) -> float:
        """Return the p-value of the order test, at any time."""
        return p_value(log_e_order(losses)) if len(losses) else 1.0

    def intervals(self, contrasts: Sequence[Contrast], family: float) -> list[Interval]:
        """Return the present intervals of confidence sequences; infinite with too few seeds."""
        return [self.interval(contrasts, index, family) for index in range(len(contrasts))]

    def interval(self, contrasts: Sequence[Contrast], index: int, family: float) -> Interval:
        """Return one of these intervals, which may depend on the others."""
        contrast, others = contrasts[index], NOTHING
        x, off = contrast.differences, contrast.rounding
        if self.borrows:
            found = residuals_of_others(contrasts)
            if found is None:
                return Interval(contrast.mean, -math.inf, math.inf, len(x))
            others = Residuals(*(float(np.ravel(part)[index]) for part in found))
        high, low = (
            upper_limit(sign * x, self.error / family, floor(contrast), self.bound, others)
            for sign in (1, -1)
        )
        return Interval(contrast.mean, -low - off, high + off, len(x))


FIXED_NUMBER = FixedNumber()
