"""What a search may suggest: all configurations of a small space, or some by chance."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.planning.study_spec import SearchedArm, StudySpec
from sweeps.spec.constraints import broken
from sweeps.spec.search_spec import Parameter
from trainables.config import TrialConfig
from trainables.errors import UserError

MOST = 1_000  # configurations that are looked at
Configuration = tuple[SearchedArm, dict[str, Any]]  # with the values that were chosen, by path


@dataclass(frozen=True)
class Allowed:
    """Configurations that a study may suggest."""

    keys: frozenset[str]  # of their trials with the first seed
    looked_at: int  # configurations
    is_all: bool  # there are no others


def allowed(
    cell: StudySpec,
    constraints: Sequence[str],
    seed: int,
    enough: float = math.inf,
    small: int = MOST,
) -> Allowed:
    """Look for configurations that a study may suggest.

    Args:
        cell: of the study.
        constraints: of the search.
        seed: the first one of each configuration.
        enough: stop when there are so many; one is enough of those by chance.
        small: a space with at most so many configurations is looked at as a whole.
    """
    every = list(itertools.islice(_every(cell), small + 1)) if _is_finite(cell) else []
    is_small = 0 < len(every) <= small
    candidates = every if is_small else _some(cell)
    keys: set[str] = set()
    looked_at = 0
    for arm, values in candidates:
        looked_at += 1
        if trial := _allowed_trial(arm, values, constraints, seed):
            keys.add(trial.key)
        if len(keys) >= (enough if is_small else 1):
            break
    return Allowed(frozenset(keys), looked_at, is_small and looked_at == len(every))


def _is_finite(cell: StudySpec) -> bool:
    return all(p.count < math.inf for arm in cell.arms for p in arm.space.values())


@dataclass
class _Turn:
    """Chooses by places: which of its values each parameter has, in the order of choice."""

    places: list[int]
    counts: list[float] = field(default_factory=list)

    def pick(self, name: str, parameter: Parameter) -> Any:
        if len(self.counts) == len(self.places):
            self.places.append(0)
        self.counts.append(parameter.count)
        return parameter.value(self.places[len(self.counts) - 1])


def _every(cell: StudySpec) -> Iterator[Configuration]:
    """All combinations of values, the last parameter changing fastest."""
    places: list[int] = []
    while True:
        turn = _Turn(places)
        yield cell.choose(turn.pick)
        while places and places[-1] + 1 == turn.counts[len(places) - 1]:
            places.pop()
        if not places:
            return
        places[-1] += 1


def _some(cell: StudySpec) -> Iterator[Configuration]:
    """Random combinations, the same ones every time."""
    chance = random.Random(0)
    for _ in range(MOST):
        yield cell.choose(lambda name, parameter: parameter.draw(chance))


def some_allowed(
    cell: StudySpec, constraints: Sequence[str], seed: int, count: int
) -> list[TrialConfig]:
    """Draw at most `count` configurations that a study may suggest, the same ones every time."""
    drawn = (_allowed_trial(arm, values, constraints, seed) for arm, values in _some(cell))
    return list(itertools.islice(filter(None, drawn), count))


def _allowed_trial(
    arm: SearchedArm, values: Mapping[str, Any], constraints: Sequence[str], seed: int
) -> TrialConfig | None:
    """Return the trial with these values, or None if they exclude each other or a constraint."""
    with contextlib.suppress(UserError):  # the values exclude each other
        trial = arm.configure(values, seed)
        if not broken(constraints, trial.flat):
            return trial
    return None
