"""The arms of a sweep file: their settings, looked up and checked once, and their trials."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from pydantic.fields import FieldInfo

from sweeps.spec.search_spec import Parameter
from sweeps.spec.sweep_file import Arm, SweepFile
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus
from trainables.errors import UserError, brief, unknown_setting
from trainables.variants import schema_of

EVALUATE_TRAIN = "training.evaluate_train"  # decides no result, so it tells no trials apart

Fields = Mapping[str, FieldInfo]  # by dotted path, such as ``model.n_embd``
ArmTrial = tuple[int, TrialConfig]  # the index of an arm in the sweep file, and one of its trials


class TrialSettings(TypedDict):
    """Input of `TrialConfig.from_dict`, but for the seed."""

    model: dict[str, object]
    training: dict[str, object]
    corpus: str
    corpus_digest: str
    corpus_test: NotRequired[float]  # where there is a test split, as is the next one
    is_tested: NotRequired[bool]


@dataclass(frozen=True)
class ResolvedArm:
    """An arm of a sweep file whose paths all exist, and whose ranges have their settings' types.

    A value of ``evaluate_train`` in its grid is a fixed one, as it tells no trials apart. A fixed
    value or a value of the grid is checked later, when a trial is made with it.
    """

    index: int  # in the sweep file
    where: str  # its place for messages, such as ``sweep.yaml: arms[2]``
    variant: str
    fields: Fields  # all settings that its trials have
    fixed: TrialSettings
    grid: Mapping[str, Sequence[object]]  # values to compare, by dotted path
    space: Mapping[str, Parameter]  # what a search chooses, by dotted path

    def combinations(self) -> list[dict[str, object]]:
        """Return the combinations of the grid's values by dotted path; an empty one if no grid."""
        products = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, values, strict=True)) for values in products]

    def trials(self, seed: int) -> list[TrialConfig]:
        """Return a trial for each combination of the grid.

        Raises:
            UserError: a value is wrong, or some values exclude each other.
        """
        return [
            TrialConfig.from_dict({**self.settings(combination), "seed": seed}, self.where)
            for combination in self.combinations()
        ]

    def settings(self, combination: Mapping[str, object]) -> TrialSettings:
        """Return the settings of the trials with these values of the grid."""
        model, training = dict(self.fixed["model"]), dict(self.fixed["training"])
        for path, value in combination.items():
            part, _, name = path.partition(".")
            (model if part == "model" else training)[name] = value
        return {**self.fixed, "model": model, "training": training}

    def defaults(self, settings: TrialSettings) -> dict[str, object]:
        """Return a value for every setting by dotted path: the given one, or else its default."""
        given = {f"model.{name}": value for name, value in settings["model"].items()}
        given |= {f"training.{name}": value for name, value in settings["training"].items()}
        return {path: field.get_default() for path, field in self.fields.items()} | given


def resolve_arms(sweep: SweepFile, corpus: Corpus, source: str) -> list[ResolvedArm]:
    """Resolve the arms of a sweep.

    Args:
        sweep: the file, with the overrides applied.
        corpus: its corpus.
        source: name of the file, for messages.

    Raises:
        UserError: a variant or a path does not exist, a list of the grid is empty, a setting is in
            the grid and in the search, or a range or condition does not fit its setting.
    """
    return [
        _resolve(index, arm, sweep, corpus, f"{source}: arms[{index}]")
        for index, arm in enumerate(sweep.arms)
    ]


def grid_trials(arms: Sequence[ResolvedArm], seeds: Sequence[int]) -> list[ArmTrial]:
    """Return the trials of the arms without a search, each combination with all seeds.

    Raises:
        UserError: a value is wrong, or a trial occurs twice.
    """
    found: dict[str, ArmTrial] = {}
    for arm in arms:
        for first in arm.trials(seeds[0]) if not arm.space else ():
            for seed in seeds:
                trial = first.with_seed(seed, arm.where)
                if trial.key in found:
                    raise UserError(f"{arm.where} {_repeats(trial, *found[trial.key])}")
                found[trial.key] = arm.index, trial
    return list(found.values())


def _repeats(trial: TrialConfig, index: int, other: TrialConfig) -> str:
    """Return the message about a trial that has the key of another one, of arm ``index``."""
    settings = " ".join(f"{name}={value}" for name, value in trial.flat.items())
    own, others = trial.training.model_dump(), other.training.model_dump()
    idle = [name for name, value in own.items() if value != others[name]]
    why = f", and {', '.join(idle)} cannot change its result" if idle else ""
    return f"repeats a trial of arms[{index}]: {settings}{why}; remove one of them"


def setting_fields(model: Mapping[str, object], where: str = "model") -> Fields:
    """Return the settings that an arm can vary: those of its variant, and the training's.

    Args:
        model: of the arm; its ``variant`` is looked up.
        where: its place in the sweep file, for messages.

    Raises:
        UserError: there is no such variant.
    """
    settings = schema_of(model, where).model_fields
    return {
        **{f"model.{name}": field for name, field in settings.items()},
        **{f"training.{name}": field for name, field in TrainingConfig.model_fields.items()},
    }


def _resolve(index: int, arm: Arm, sweep: SweepFile, corpus: Corpus, where: str) -> ResolvedArm:
    fields = setting_fields(arm.model, f"{where}.model")
    _check_paths(arm, fields, where)
    grid, training = dict(arm.grid), {**sweep.training, **arm.training}
    for value in grid.pop(EVALUATE_TRAIN, ()):
        training["evaluate_train"] = value
    fixed: TrialSettings = {
        "model": dict(arm.model),
        "training": training,
        "corpus": corpus.name,
        "corpus_digest": corpus.digest,
    }
    if sweep.corpus.test:
        fixed |= {"corpus_test": sweep.corpus.test, "is_tested": not arm.search}
    return ResolvedArm(
        index=index,
        where=where,
        variant=str(arm.model["variant"]),
        fields=fields,
        fixed=fixed,
        grid=grid,
        space=_space(arm.search, fields, f"{where}.search"),
    )


def _check_paths(arm: Arm, fields: Fields, where: str) -> None:
    """Check that the grid and the search name settings that exist, and no setting twice."""
    paths = [("grid", path) for path in arm.grid] + [("search", path) for path in arm.search]
    for part, path in paths:
        if path == "seed":
            seeds = arm.grid[path] if part == "grid" else arm.search[path].choices
            raise UserError(
                f"{where}.{part}.seed: all arms have the same seeds, so that they can be"
                f" compared; write `replicates: {brief(seeds or 3)}` for the sweep"
            )
        _check_path(path, fields, f"{where}.{part}")
        if path == EVALUATE_TRAIN and (part == "search" or len(arm.grid[path]) > 1):
            raise UserError(
                f"{where}.{part}.{path}: trials that differ in nothing else are the same trial;"
                " give one value, as in `training: {evaluate_train: exact}`"
            )
    for path, values in arm.grid.items():
        if not values:
            raise UserError(f"{where}.grid.{path}: the list is empty; give at least one value")
        if path in arm.search:
            raise UserError(
                f"{where}.search.{path}: the grid has it too; put settings to compare into the"
                " grid, settings to tune into the search"
            )


def _check_path(path: str, fields: Fields, where: str) -> None:
    if path not in fields:
        short = {known.rpartition(".")[2] for known in fields}
        known = short if path.startswith(("model.", "training.")) else fields
        raise UserError(f"{where}.{path}: {unknown_setting(path.rpartition('.')[2], known)}")


def _space(search: Mapping[str, Parameter], fields: Fields, where: str) -> dict[str, Parameter]:
    """Return the search space of an arm, its ranges in the types of their settings."""
    space: dict[str, Parameter] = {}
    for path, parameter in search.items():
        for other, values in parameter.when.items():
            _check_path(other, fields, f"{where}.{path}.when")
            if other in search and other not in space:
                raise UserError(
                    f"{where}.{path}.when: {other} must come before it, as its value decides"
                    " whether this setting is chosen"
                )
            choices = space[other].choices if other in space else None
            if choices and (odd := [value for value in values if value not in choices]):
                raise UserError(
                    f"{where}.{path}.when.{other}: {brief(odd[0])} is not one of its"
                    f" choices, {brief(choices)}"
                )
        space[path] = _in_type(parameter, fields[path].annotation, f"{where}.{path}")
    return space


def _in_type(parameter: Parameter, annotation: object, where: str) -> Parameter:
    """Return the parameter with numbers of the setting's type: whole ones, or floats."""
    if parameter.choices is not None:
        whole = [choice for choice in parameter.choices if type(choice) is int]
        if annotation is float and len(whole) == len(parameter.choices):
            return parameter.model_copy(update={"choices": [float(choice) for choice in whole]})
        return parameter
    ends = {"low": parameter.low, "high": parameter.high, "step": parameter.step}
    if annotation is int:
        for name, value in ends.items():
            if isinstance(value, float):
                raise UserError(f"{where}.{name}: must be a whole number, not {value}")
        return parameter
    if annotation is not float:
        raise UserError(f"{where}: this setting is no number; give a list of choices")
    floats = {name: float(value) for name, value in ends.items() if value is not None}
    return parameter.model_copy(update=floats)
