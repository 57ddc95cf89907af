"""From a sweep file to its trials: overrides, expansion, and every check of a value."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeps.spec import Arm, SweepFile
from sweeps.yaml_file import parse_yaml
from trainables.config import TrainingConfig, TrialConfig
from trainables.corpus import Corpus
from trainables.errors import UserError, unknown_setting, validate
from trainables.variants import config_class

SWEEP_PATHS = ("name", "description", "corpus", "replicates", "resources.", "tracking.")


@dataclass(frozen=True)
class Plan:
    """A sweep with its corpus and its trials, all valid and all different."""

    sweep: SweepFile
    corpus: Corpus
    trials: tuple[TrialConfig, ...]
    command: str = ""  # that asks for this sweep again

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The settings that differ between trials, those with words for values first.

        A setting that some trials lack differs too.
        """
        flats = [trial.flat for trial in self.trials]
        settings = [trial.model.to_dict() for trial in self.trials]  # before the training's
        names = dict.fromkeys(itertools.chain(*settings, *flats))
        differing = [n for n in names if len({repr(flat.get(n)) for flat in flats}) > 1]
        in_words = {n for n in differing if any(isinstance(flat.get(n), str) for flat in flats)}
        return tuple(sorted(differing, key=lambda name: name not in in_words))

    def run_name(self, trial: TrialConfig) -> str:
        """What differs, in a few characters, such as ``attention rope 128 64``."""
        values = [str(trial.flat[name]) for name in self.varying if name in trial.flat]
        return " ".join(values) or trial.model.variant


def override(sweep: SweepFile, assignments: Sequence[str]) -> SweepFile:
    """Change a sweep by ``path=value``; ``path=a,b`` tries both values.

    A path of a trial (``model.X``, ``training.X``) holds for every arm whose model has that
    setting, and replaces what the arm gives or sweeps there. ``seed=7`` is the first seed of the
    replicates, ``seed=7,8`` and ``replicates=[7,8]`` are all of them.

    Raises:
        UserError: the form, the path or the value is wrong.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        where = f"override {assignment!r}"
        if not equals:
            raise UserError(f"{where}: write it as path=value, such as training.max_steps=100")
        data = sweep.model_dump()
        if path == "seed" and "," in text:
            path, text = "replicates", f"[{text.removeprefix('[').removesuffix(']')}]"
        if path == "seed":
            data["seed"] = parse_yaml(text) if text else None
        elif path.startswith(SWEEP_PATHS):
            _assign(data, path.split("."), parse_yaml(text) if text else None)
        else:
            values = parse_yaml(f"[{text.removeprefix('[').removesuffix(']')}]")
            arms = [arm for arm in sweep.arms if path in _known_paths(arm.model)]
            if not arms:
                known = {path for arm in sweep.arms for path in _known_paths(arm.model)}
                raise UserError(f"{where}: {unknown_setting(path, known | set(data))}")
            for arm, raw in zip(sweep.arms, data["arms"], strict=True):
                if arm in arms:
                    raw["grid"][path] = values
        sweep = validate(SweepFile, data, f"{where}: ")
    return sweep


def expand(sweep: SweepFile, corpus: Corpus, source: str) -> Plan:
    """Build all trials of a sweep.

    Args:
        sweep: the file, overrides applied.
        corpus: its corpus.
        source: what to call the file in messages.

    Raises:
        UserError: a value cannot be, a grid is empty, or a trial occurs twice.
    """
    validate(TrainingConfig, sweep.training, f"{source}: training")
    arm_of_key: dict[str, int] = {}
    trials = []
    for index, arm in enumerate(sweep.arms):
        where = f"{source}: arms[{index}]"
        for trial in _expand_arm(sweep, arm, corpus, where):
            if trial.key in arm_of_key:
                raise UserError(
                    f"{where} repeats a trial of arms[{arm_of_key[trial.key]}]:"
                    f" {describe(trial.flat)}; remove one of them"
                )
            arm_of_key[trial.key] = index
            trials.append(trial)
    return Plan(sweep, corpus, tuple(trials))


def describe(settings: Mapping[str, Any]) -> str:
    """``name=value`` pairs in one line."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _expand_arm(sweep: SweepFile, arm: Arm, corpus: Corpus, where: str) -> Iterable[TrialConfig]:
    known = _known_paths(arm.model, f"{where}.model")
    for path, values in arm.grid.items():
        if path == "seed":
            raise UserError(
                f"{where}.grid.seed: all arms have the same seeds, so that they can be compared;"
                f" write `replicates: {values}` for the sweep"
            )
        if path not in known:
            short = {path.rpartition(".")[2]: path for path in known}
            name = path.rpartition(".")[2]
            options = short if path.startswith(("model.", "training.")) else known
            raise UserError(f"{where}.grid.{path}: {unknown_setting(name, options)}")
        if not values:
            raise UserError(f"{where}.grid.{path}: the list is empty; give at least one value")
    for *combination, seed in itertools.product(*arm.grid.values(), sweep.seeds):
        data: dict[str, Any] = {
            "model": dict(arm.model),
            "training": {**sweep.training, **arm.training},
            "seed": seed,
        }
        for path, value in zip(arm.grid, combination, strict=True):
            _assign(data, path.split("."), value)
        identity = {"corpus": corpus.name, "corpus_digest": corpus.digest}
        trial = TrialConfig.from_dict(data | identity, where)
        try:
            corpus.check_block(trial.training.block_size)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        yield trial


def _known_paths(model: Mapping[str, Any], where: str = "model") -> set[str]:
    """The dotted paths that an arm may sweep: its variant's settings and the training's."""
    settings = dataclasses.fields(config_class(model, where))
    return {
        *(f"model.{setting.name}" for setting in settings),
        *(f"training.{name}" for name in TrainingConfig.model_fields),
    }


def _assign(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested value by its path."""
    *parents, name = path
    for parent in parents:
        data = data[parent]
    data[name] = value
