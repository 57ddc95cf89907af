"""Claims at the edge of their truth, where a verdict is most easily wrong.

All other differences are clear, so that the verdict depends on the one test in question alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from analysis.claims.claim import MARGIN, NEGATED, Scope
from analysis.claims.decisions import Verdict
from benchmarks.synthetic import Means, Truth

CLEAR = 0.5  # nats per character; a difference that every test finds
LEVELS = 10  # of the hardest trend

SUPPORTED: Verdict = "SUPPORTED"
REFUTED: Verdict = "NOT SUPPORTED"
EVERY: Scope = "in every cell"
FORMS: Mapping[str, Mapping[str, object]] = {
    "better/worse": {"better": {"size": 3}, "worse": {"size": 2}},
    "order": {"factor": "size", "order": [3, 2, 1]},
    "monotone": {"factor": "size", "monotone": "falling"},
    "best": {"factor": "size", "best": 3},
    "trend": {"factor": "size", "trend": "falling"},
    "equal": {"factor": "size", "equal": [2, 1], "margin": CLEAR},
}


@dataclass(frozen=True)
class Edge:
    """A claim at the edge of its truth, and the verdict that is wrong there.

    SUPPORTED is wrong at the edge of what is false, NOT SUPPORTED at the edge of what is true.
    """

    form: str
    holds: Scope
    wrong: Verdict

    def __str__(self) -> str:
        return f"{self.form} {self.holds} {self.wrong}"

    @property
    def claim(self) -> dict[str, object]:
        return {**FORMS[self.form], "holds": self.holds}

    @property
    def truth(self) -> Truth:
        """The hardest truth; the noise in question belongs to the level that would look better."""
        family = {"equal": _equal, "trend": _trend}.get(self.form, _steps)
        means = family(self)
        last = len(means[0]) - 1
        is_last = (self.wrong == SUPPORTED) != (self.holds == NEGATED)
        return Truth(means, frozenset([last] if is_last else range(last)))

    @property
    def is_of_every(self) -> bool:
        """True if the wrong verdict would say that the comparison holds in every cell."""
        return (self.wrong, self.holds) in {(SUPPORTED, EVERY), (REFUTED, NEGATED)}


EDGES = tuple(
    Edge(form, holds, wrong)
    for form in FORMS
    for holds in get_args(Scope)
    for wrong in (SUPPORTED, REFUTED)
)


def _steps(edge: Edge) -> Means:
    """Return means for claims that the last level is best, and each better than the one before."""
    if edge.is_of_every:
        return (CLEAR, 0, 0), (2 * CLEAR, CLEAR, 0)  # all clear but one difference of zero
    if edge.wrong == REFUTED:  # each difference is the margin
        return ((MARGIN if edge.form == "best" else 2 * MARGIN, MARGIN, 0),) * 2
    if edge.holds == NEGATED:
        return ((0, 0, 0),) * 2
    return (3 * CLEAR, CLEAR, 0), (CLEAR, -CLEAR, 0)  # 3 and 2 differ in both, but not on average


def _trend(edge: Edge) -> Means:
    """Return means for claims that losses fall as the level rises."""
    falling = CLEAR * np.arange(LEVELS)[::-1]
    position = np.arange(LEVELS) - (LEVELS - 1) / 2
    flat = falling.copy()  # all fall but the last, which is so high that the line is level
    flat[-1] = -(position[:-1] @ falling[:-1]) / position[-1]
    if edge.is_of_every:
        return tuple(flat), tuple(falling)
    if edge.wrong == REFUTED:
        return ((MARGIN, MARGIN / 2, 0),) * 2
    return ((0, 0, 0) if edge.holds == NEGATED else tuple(flat),) * 2


def _equal(edge: Edge) -> Means:
    """Return means of two levels that differ by the margin, in both cells or in one of them."""
    if edge.is_of_every:
        return (0, CLEAR), (0, 0)
    return ((0, CLEAR),) * 2


def by_truth(edges: Iterable[Edge]) -> list[list[Edge]]:
    """Return the edges in groups of equal truth: the same sweeps serve all claims of a group."""
    groups = defaultdict(list)
    for edge in edges:
        groups[edge.truth].append(edge)
    return list(groups.values())
