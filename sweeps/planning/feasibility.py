"""What a search may suggest: all configurations of a small space, or random ones of a large one."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sweeps.planning.study_spec import SearchedArm, StudySpec
from sweeps.spec.constraints import broken, holds, names_in
from sweeps.spec.search_spec import Parameter, Scalar, SearchSpec
from trainables.config import TrialConfig
from trainables.errors import UserError, unknown_setting

MOST = 1_000  # configurations of a study that are checked
Configuration = tuple[SearchedArm, dict[str, Scalar]]  # an arm, and the chosen values by path


@dataclass(frozen=True)
class Allowed:
    """Configurations that a study may suggest."""

    keys: frozenset[str]  # of their trials with the first seed
    looked_at: int  # configurations that were checked
    is_all: bool  # whether these are all configurations of the study


def check_constraints(
    constraints: Sequence[str], examples: Sequence[TrialConfig], source: str
) -> None:
    """Check that the constraints of a search can be evaluated for some of its trials.

    Args:
        constraints: of the search.
        examples: trials that it may suggest.
        source: name of the sweep file, for messages.

    Raises:
        UserError: a constraint is no expression, or names a setting that no trial has.
    """
    names = {name for example in examples for name in example.flat}
    for number, text in enumerate(constraints):
        try:
            if unknown := names_in(text) - names:
                raise UserError(unknown_setting(min(unknown), names))
            for example in examples:
                holds(text, example.flat)
        except UserError as error:
            raise UserError(f"{source}: search.constraints[{number}]: {error}") from None


def study_sizes(
    studies: Sequence[StudySpec], search: SearchSpec, seed: int, source: str
) -> dict[str, int]:
    """Count the configurations of the studies that have fewer than they are to suggest.

    Args:
        studies: of the search.
        search: its budget and constraints.
        seed: the first one of each configuration.
        source: name of the sweep file, for messages.

    Returns:
        The number of configurations, by the label of the study.

    Raises:
        UserError: the budget has no suggestion for some study, or no configuration of a study
            satisfies the constraints.
    """
    if search.budget is not None and search.budget < len(studies):
        raise UserError(
            f"{source}: search.trials={search.budget} is less than a suggestion for each of the"
            f" {len(studies)} studies; give {len(studies)} or more"
        )
    sizes = {}
    for study in studies:
        enough = search.share(len(studies)) or math.inf
        found = allowed(study, search.constraints, seed, enough, MOST // len(studies))
        if not found.keys:
            count = f"{found.looked_at:,}"
            which = f"the {count}" if found.is_all else f"{count} random"
            raise UserError(
                f"{source}: search.constraints: none of {which} configurations of the study"
                f" {study.label} satisfies them; loosen them, or narrow the ranges to where they"
                " hold"
            )
        if found.is_all and len(found.keys) < enough:
            sizes[study.label] = len(found.keys)
    return sizes


def allowed(
    study: StudySpec,
    constraints: Sequence[str],
    seed: int,
    enough: float = math.inf,
    small: int = MOST,
) -> Allowed:
    """Find configurations that a study may suggest.

    Args:
        study: whose space is looked at.
        constraints: of the search.
        seed: the first one of each configuration.
        enough: stop after this many in a small space; after the first in a large one.
        small: the most configurations of a space that is checked as a whole.
    """
    every = list(itertools.islice(_every(study), small + 1)) if _is_finite(study) else []
    is_small = 0 < len(every) <= small
    candidates = every if is_small else _random(study)
    keys: set[str] = set()
    looked_at = 0
    for arm, values in candidates:
        looked_at += 1
        if trial := _allowed_trial(arm, values, constraints, seed):
            keys.add(trial.key)
        if len(keys) >= (enough if is_small else 1):
            break
    return Allowed(frozenset(keys), looked_at, is_small and looked_at == len(every))


def _is_finite(study: StudySpec) -> bool:
    return all(p.count < math.inf for arm in study.arms for p in arm.space.values())


@dataclass
class _Enumerated:
    """Chooses the value at a given place for each parameter, in the order of choice."""

    places: list[int]
    counts: list[float] = field(default_factory=list)  # values of each parameter so far

    def pick(self, name: str, parameter: Parameter) -> Scalar:
        if len(self.counts) == len(self.places):
            self.places.append(0)
        self.counts.append(parameter.count)
        return parameter.value(self.places[len(self.counts) - 1])


def _every(study: StudySpec) -> Iterator[Configuration]:
    """Yield all combinations of values; the last parameter changes fastest."""
    places: list[int] = []
    while True:
        chosen = _Enumerated(places)
        yield study.choose(chosen.pick)
        while places and places[-1] + 1 == chosen.counts[len(places) - 1]:
            places.pop()
        if not places:
            return
        places[-1] += 1


def _random(study: StudySpec) -> Iterator[Configuration]:
    """Yield random combinations of values, the same ones every time."""
    generator = random.Random(0)
    for _ in range(MOST):
        yield study.choose(lambda name, parameter: parameter.draw(generator))


def some_allowed(
    study: StudySpec, constraints: Sequence[str], seed: int, count: int
) -> list[TrialConfig]:
    """Draw at most `count` configurations that a study may suggest, the same ones every time."""
    drawn = (_allowed_trial(arm, values, constraints, seed) for arm, values in _random(study))
    return list(itertools.islice(filter(None, drawn), count))


def _allowed_trial(
    arm: SearchedArm, values: Mapping[str, Scalar], constraints: Sequence[str], seed: int
) -> TrialConfig | None:
    """Return the trial with these values, or None if it is invalid or a constraint excludes it."""
    with contextlib.suppress(UserError):  # the values exclude each other
        trial = arm.configure(values, seed)
        if not broken(constraints, trial.flat):
            return trial
    return None
