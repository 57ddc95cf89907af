"""What each study of a search tunes: a study for each combination of the grid.

Knows no Optuna: `sweeps.search.study` suggests values by it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from sweeps.planning.arms import ArmTrial, ResolvedArm, TrialSettings
from sweeps.spec.search_spec import Parameter, Scalar
from trainables.config import RESULT_VERSION, TrialConfig
from trainables.errors import UserError, brief

Value = TypeVar("Value")
Pick = Callable[[str, Parameter], Scalar]  # chooses a value, given a name and a range
ARM = "arm"  # the parameter that chooses among arms


@dataclass(frozen=True)
class SearchedArm:
    """An arm with one combination of its grid, and the settings that a search chooses in it."""

    index: int  # in the sweep file
    label: str
    settings: TrialSettings
    space: Mapping[str, Parameter]  # what is chosen, by dotted path
    defaults: Mapping[str, object]  # a value for every setting by dotted path, for conditions
    where: str  # for messages

    @cached_property
    def example(self) -> TrialConfig:
        """One of the trials that may be suggested."""
        return self.configure(self.choose(lambda _, parameter: _extremes(parameter)[0], str), 0)

    def choose(
        self, pick: Callable[[str, Parameter], Value], name_of: Callable[[str], str]
    ) -> dict[str, Value]:
        """Choose values by dotted path; a parameter whose condition does not hold is left out.

        Args:
            pick: chooses the value of a parameter.
            name_of: returns the name of a parameter, given its path.
        """
        values: dict[str, Value] = {}
        for path, parameter in self.space.items():
            known = {**self.defaults, **values}
            if all(known[other] in allowed for other, allowed in parameter.when.items()):
                values[path] = pick(name_of(path), parameter)
        return values

    def configure(self, values: Mapping[str, object], seed: int) -> TrialConfig:
        """Return the trial with these values, by dotted path.

        Raises:
            UserError: a value is not possible, or some exclude each other.
        """
        parts = {"model": dict(self.settings["model"]), "training": dict(self.settings["training"])}
        for path, value in values.items():
            part, _, name = path.partition(".")
            parts[part][name] = value
        return TrialConfig.from_dict({**self.settings, **parts, "seed": seed}, self.where)

    def examples(self, seed: int) -> Iterator[TrialConfig]:
        """Yield each end and each choice of every parameter once, the others at their first."""
        for path, parameter in self.space.items():
            for value in _extremes(parameter):
                fixed = {other: values[0] for other, values in parameter.when.items()}
                fixed[path] = value

                def pick(name: str, other: Parameter, fixed: dict[str, object] = fixed) -> object:
                    return fixed.get(name, _extremes(other)[0])

                yield self.configure(self.choose(pick, str), seed)


@dataclass(frozen=True)
class StudySpec:
    """One study: an arm with a combination of its grid, or all arms that have no grid."""

    label: str
    arms: tuple[SearchedArm, ...]

    def choose(self, pick: Pick) -> tuple[SearchedArm, dict[str, Scalar]]:
        """Choose an arm, and values by dotted path."""
        arm = self.arms[0]
        if len(self.arms) > 1:
            labels: list[Scalar] = [arm.label for arm in self.arms]
            arm = self.arms[labels.index(pick(ARM, Parameter(choices=labels)))]

        def name_of(path: str) -> str:
            """Return the short name of a setting, with its arm if arms have different ranges."""
            spaces = {repr(other.space[path]) for other in self.arms if path in other.space}
            short = short_name(path)
            return short if len(spaces) == 1 else f"{short} of {arm.label}"

        return arm, arm.choose(pick, name_of)

    def digest(self, *more: object) -> str:
        """Return 8 hexadecimal digits over all that decides what a suggestion means."""
        arms = [
            (
                arm.label,
                {**arm.settings, "training": _deciding(arm.settings["training"])},
                {path: parameter.model_dump() for path, parameter in arm.space.items()},
                arm.example.model.code_digest,
            )
            for arm in self.arms
        ]
        canonical = json.dumps([RESULT_VERSION, arms, more], sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def make_study_specs(arms: Sequence[ResolvedArm], source: str) -> tuple[StudySpec, ...]:
    """Return a study for each combination of the grids, and one for all arms without a grid.

    Args:
        arms: of the sweep; those without a search have no study.
        source: name of the sweep file, for messages.

    Raises:
        UserError: two studies have the same label.
    """
    searched = [arm for arm in arms if arm.space]
    variants = Counter(arm.variant for arm in searched)
    specs: dict[str, StudySpec] = {}
    without_grid: list[SearchedArm] = []
    for arm in searched:
        suffix = f" (arms[{arm.index}])" if variants[arm.variant] > 1 else ""
        for combination in arm.combinations():
            spec = _study_spec(arm, f"{arm.variant}{suffix}", combination)
            if not combination:
                without_grid += spec.arms
                continue
            if spec.label in specs:
                raise UserError(
                    f"{source}: the grid has the study {brief(spec.label)} twice; remove one of"
                    " them"
                )
            specs[spec.label] = spec
    together = [StudySpec(", ".join(arm.label for arm in without_grid), tuple(without_grid))]
    return (*specs.values(), *(together if without_grid else []))


def _study_spec(arm: ResolvedArm, label: str, combination: Mapping[str, object]) -> StudySpec:
    settings = arm.settings(combination)
    defaults = arm.defaults(settings)
    searched = SearchedArm(arm.index, label, settings, arm.space, defaults, arm.where)
    values = [f"{short_name(path)}={value}" for path, value in combination.items()]
    return StudySpec(" ".join([label, *values]), (searched,))


def study_examples(studies: Sequence[StudySpec], seed: int) -> list[ArmTrial]:
    """Return examples of what the studies may suggest, in the order of the arms.

    Raises:
        UserError: a value is wrong.
    """
    arms = [arm for study in studies for arm in study.arms]
    arms.sort(key=lambda arm: arm.index)
    return [(arm.index, trial) for arm in arms for trial in arm.examples(seed)]


def short_name(path: str) -> str:
    """Return the last part of a dotted path, as tables show it."""
    return path.rpartition(".")[2]


def _deciding(training: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a training that can decide a result."""
    return {name: value for name, value in training.items() if name != "evaluate_train"}


def _extremes(parameter: Parameter) -> Sequence[Scalar]:
    """Return all choices, or the lowest and the highest value of a range."""
    if parameter.choices is not None:
        return parameter.choices
    return [parameter.low, parameter.highest]
