"""What a search tunes: one cell for each combination of the grid, with the settings left to choose.

Knows no Optuna: `sweeps.search.study` chooses by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeps.spec.search_spec import Parameter
from trainables.config import RESULT_VERSION, TrialConfig

Pick = Callable[[str, Parameter], Any]  # chooses a value, by the name of a parameter and its range
ARM = "arm"  # the parameter that chooses among arms


@dataclass(frozen=True)
class SearchedArm:
    """An arm with its grid's values held, and what may be chosen in it.

    ``settings`` is what `TrialConfig.from_dict` reads, but for the seed and what is chosen;
    ``defaults`` has a value for every other path, for conditions. Both go by dotted paths' parts.
    """

    index: int  # in the sweep file
    label: str
    settings: Mapping[str, Any]
    space: Mapping[str, Parameter]  # by dotted path
    defaults: dict[str, Any]  # by dotted path
    where: str  # for messages

    @cached_property
    def example(self) -> TrialConfig:
        """One of the trials that it may be."""
        return self.configure(self.choose(lambda _, parameter: _few(parameter)[0], str), 0)

    def choose(self, pick: Pick, name_of: Callable[[str], str]) -> dict[str, Any]:
        """Values by path; a parameter whose condition does not hold is left out."""
        values: dict[str, Any] = {}
        for path, parameter in self.space.items():
            held = self.defaults | values
            if all(held[other] in allowed for other, allowed in parameter.when.items()):
                values[path] = pick(name_of(path), parameter)
        return values

    def configure(self, values: Mapping[str, Any], seed: int) -> TrialConfig:
        """The trial with these values.

        Raises:
            UserError: they cannot be together.
        """
        data = {**self.settings, "seed": seed}
        data |= {part: dict(data[part]) for part in ("model", "training")}
        for path, value in values.items():
            part, _, name = path.partition(".")
            data[part][name] = value
        return TrialConfig.from_dict(data, self.where)

    def examples(self, seed: int) -> Iterator[TrialConfig]:
        """Each end and each choice of every parameter once, the others at their first."""
        for path, parameter in self.space.items():
            for value in _few(parameter):
                held = {path: value} | {other: few[0] for other, few in parameter.when.items()}

                def pick(name: str, other: Parameter, held: dict[str, Any] = held) -> Any:
                    return held.get(name, _few(other)[0])

                yield self.configure(self.choose(pick, str), seed)


@dataclass(frozen=True)
class StudySpec:
    """One study: several arms share one where they have no grid."""

    label: str
    arms: tuple[SearchedArm, ...]

    def choose(self, pick: Pick) -> tuple[SearchedArm, dict[str, Any]]:
        """An arm, and values by path."""
        arm = self.arms[0]
        if len(self.arms) > 1:
            labels = [arm.label for arm in self.arms]
            arm = self.arms[labels.index(pick(ARM, Parameter(choices=labels)))]

        def name_of(path: str) -> str:
            """The setting's own name, in all arms that give it the same range."""
            spaces = {repr(other.space[path]) for other in self.arms if path in other.space}
            short = short_name(path)
            return short if len(spaces) == 1 else f"{short} of {arm.label}"

        return arm, arm.choose(pick, name_of)

    def digest(self, *more: object) -> str:
        """8 hexadecimal digits over all that decides what a suggestion means."""
        arms = [
            (
                arm.label,
                arm.settings,
                {path: parameter.model_dump() for path, parameter in arm.space.items()},
                arm.example.model.code_digest,
            )
            for arm in self.arms
        ]
        canonical = json.dumps([RESULT_VERSION, arms, more], sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def make_study_specs(
    arms: Sequence[tuple[SearchedArm, Mapping[str, Any]]],
) -> tuple[StudySpec, ...]:
    """Put arms into cells.

    Args:
        arms: each with its combination of the grid, by dotted path; empty without a grid.
    """
    alone = [
        StudySpec(" ".join([arm.label, *(f"{short_name(p)}={v}" for p, v in grid.items())]), (arm,))
        for arm, grid in arms
        if grid
    ]
    together = tuple(arm for arm, grid in arms if not grid)
    if together:
        alone.append(StudySpec(", ".join(arm.label for arm in together), together))
    return tuple(alone)


def short_name(path: str) -> str:
    """Of a setting, as tables show it."""
    return path.rpartition(".")[2]


def _few(parameter: Parameter) -> list[Any]:
    """The choices, or the lowest and the highest value of a range."""
    if parameter.choices is not None:
        return parameter.choices
    return [parameter.low, parameter.highest]
