"""From a sweep file to its trials: overrides, expansion, and every check of a value."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic.fields import FieldInfo

from analysis.text.messages import without_password
from sweeps.planning.feasibility import MOST, allowed
from sweeps.planning.sizes import FAR, check_counts, check_sizes, fits_here
from sweeps.planning.study_spec import SearchedArm, StudySpec, make_study_specs, short_name
from sweeps.records.state import State
from sweeps.spec.constraints import holds, names_in
from sweeps.spec.overrides import read_value, read_values
from sweeps.spec.search_spec import Parameter, SearchSpec
from sweeps.spec.sweep_file import Arm, SweepFile, load_sweep
from trainables.config import TrainingConfig, TrialConfig, canonical
from trainables.data.batches import initial_stream
from trainables.data.corpus import Corpus, load_corpus
from trainables.errors import UserError, brief, unknown_setting, validate
from trainables.model_check import check_models
from trainables.own_modules import silenced
from trainables.variants import schema_of

SHORT = {  # in the names of runs
    "block_size": "block",
    "batch_size": "batch",
    "learning_rate": "lr",
    "max_steps": "steps",
    "warmup_steps": "warmup",
}


@dataclass(frozen=True)
class Plan:
    """A sweep with its corpus and its trials, all valid and all different.

    ``trials`` are those of the grid; what a search suggests in its ``studies`` comes later, and
    ``examples`` has some of each cell, which are valid.
    """

    sweep: SweepFile
    corpus: Corpus
    trials: tuple[TrialConfig, ...]
    studies: tuple[StudySpec, ...] = ()
    examples: tuple[TrialConfig, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)  # of studies that will run out, by label
    arms: Mapping[str, int] = field(default_factory=dict)  # of trials and examples, by key
    command: str = ""  # that asks for this sweep again
    warnings: tuple[str, ...] = ()  # what to know before it is trained, a line each

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The settings that differ between trials, those with words for values first.

        A setting that some trials lack differs too.
        """
        trials = (*self.trials, *self.examples)
        flats = [trial.flat for trial in trials]
        settings = [trial.model.to_dict() for trial in trials]  # before the training's
        names = dict.fromkeys(itertools.chain(*settings, *flats))
        differing = [n for n in names if len({repr(flat.get(n)) for flat in flats}) > 1]
        in_words = {n for n in differing if any(isinstance(flat.get(n), str) for flat in flats)}
        return tuple(sorted(differing, key=lambda name: name not in in_words))

    @property
    def to_come(self) -> int | None:
        """How many trials the search adds at most; None where no number limits them."""
        if self.suggestions is None:
            return None
        return self.suggestions * len(self.sweep.seeds) + self.confirming

    @property
    def suggestions(self) -> int | None:
        """How many configurations the search suggests at most; None where no number limits them."""
        budget = self.sweep.search.budget if self.studies else 0
        if len(self.sizes) == len(self.studies):  # all will run out
            most = sum(self.sizes.values())
            budget = most if budget is None else min(most, budget)
        return budget

    @property
    def confirming(self) -> int:
        """How many trials the search adds at most to confirm the winners of its studies."""
        confirm = self.sweep.search.confirm
        winners = len(self.studies) * confirm.top if confirm else 0
        return winners * len(self.sweep.confirm_seeds)

    @property
    def share(self) -> int | None:
        """How many suggestions each cell has of the budget, rounded up."""
        budget = self.sweep.search.budget
        return math.ceil(budget / len(self.studies)) if budget else None

    @property
    def tuned(self) -> tuple[str, ...]:
        """The settings that a search chooses, by short names."""
        arms = [arm for cell in self.studies for arm in cell.arms]
        return tuple(dict.fromkeys(short_name(path) for arm in arms for path in arm.space))

    @property
    def shortened(self) -> dict[str, Parameter]:
        """The ranges whose steps do not reach their high end, by short names."""
        spaces = [arm.space for cell in self.studies for arm in cell.arms]
        ranges = {short_name(p): r for space in spaces for p, r in space.items() if not r.choices}
        return {name: each for name, each in ranges.items() if each.highest != each.high}

    @property
    def costs(self) -> dict[str, Callable[[TrialConfig], float]]:
        """The objectives of the search that are known before a trial is trained."""
        known = {"parameters": self.count_parameters, "training_tokens": training_tokens}
        wanted = self.sweep.search.objectives if self.studies else []
        return {name: known[name] for name in wanted if name in known}

    def count_parameters(self, trial: TrialConfig) -> float:
        """Numbers that the model of a trial learns; NaN of one that fails by itself to be built."""
        block_size = trial.training.block_size
        try:
            with silenced():
                model = trial.model.build(
                    self.corpus.vocab_size, block_size, initial_stream(trial.seed)
                )
        except (Exception, SystemExit):
            return math.nan
        return sum(parameter.numel() for parameter in model.parameters())

    @cached_property
    def _classes(self) -> Mapping[str, str]:
        """What to call the variants: of ``MODULE:CLASS`` the class, where it is the only such."""
        variants = {trial.model.variant for trial in (*self.trials, *self.examples)}
        of_class = Counter(variant.rpartition(":")[2] for variant in variants)
        return {v: v.rpartition(":")[2] for v in variants if of_class[v.rpartition(":")[2]] == 1}

    def kind(self, trial: TrialConfig) -> int:
        """Number of the group of trials that share their text settings, counted from 0.

        Only settings count that differ in the plan and that no search tunes; where none of them
        is text, the first one, and where there is none, the first text that the search tunes. A
        trial of no group is in group 0.
        """
        return self._kinds.get(self._kind_values(trial), 0)

    @cached_property
    def _kinds(self) -> Mapping[str, int]:
        trials = (*self.trials, *self.examples)
        tuned = self._tuned_words.get(self._kind_names[0], []) if self._kind_names else []
        found = dict.fromkeys(repr([word]) for word in tuned)
        found |= dict.fromkeys(self._kind_values(trial) for trial in trials)
        return {values: number for number, values in enumerate(found)}

    def _kind_values(self, trial: TrialConfig) -> str:
        return repr([trial.flat.get(name) for name in self._kind_names])

    @cached_property
    def _kind_names(self) -> list[str]:
        names = [name for name in self.varying if name not in (*self.tuned, "seed")]
        trials = (*self.trials, *self.examples)
        in_words = [n for n in names if any(isinstance(each.flat.get(n), str) for each in trials)]
        return in_words or names[:1] or [*self._tuned_words][:1]

    @cached_property
    def _tuned_words(self) -> dict[str, list[str]]:
        """The choices that a search has for each text, by short names."""
        spaces = [arm.space for cell in self.studies for arm in cell.arms]
        found: dict[str, dict[str, None]] = {}
        for path, parameter in [item for space in spaces for item in space.items()]:
            words = [choice for choice in parameter.choices or () if isinstance(choice, str)]
            if words:
                found.setdefault(short_name(path), {}).update(dict.fromkeys(words))
        return {name: list(words) for name, words in found.items()}

    def run_name(self, trial: TrialConfig) -> str:
        """What differs, in a few words, such as ``attention rope n_embd=128 block=64``."""
        variant = trial.model.variant
        words = {"variant": self._classes.get(variant, variant)}
        shown = [name for name in self.varying if name in trial.flat]
        said = [_in_a_word(name, words.get(name, trial.flat[name])) for name in shown]
        return " ".join(said) or words["variant"]


def _in_a_word(name: str, value: Any) -> str:
    """A setting in the name of a run: text speaks for itself, and so does what is on."""
    short = SHORT.get(name, name)
    if value is True:
        return short
    if isinstance(value, float):
        return f"{short}={value:.4g}"
    return value if isinstance(value, str) else f"{short}={canonical(value)}"


def make_plan(
    name_or_path: str, overrides: Sequence[str], state: State, is_here: bool = False
) -> Plan:
    """Read a sweep file or preset, apply overrides, load its corpus and check every trial.

    Args:
        name_or_path: of the file or preset.
        overrides: as `override` takes them.
        state: has the corpora.
        is_here: whether the trials are to fit into the memory of this machine.

    Raises:
        UserError: anything in it cannot be.
    """
    sweep, source = load_sweep(name_or_path)
    sweep = override(sweep, overrides)
    corpus = load_corpus(sweep.corpus, state.corpora)
    try:
        plan = expand(sweep, corpus, source, is_here)
    except UserError as error:
        raise UserError(_naming_overrides(str(error), overrides)) from None
    command = shlex.join(["sweeps", "run", name_or_path, *overrides])
    warnings = [corpus.warning] if corpus.warning else []
    warnings += _check_own_models(plan, source)
    return replace(plan, command=command, warnings=tuple(dict.fromkeys(warnings)))


def _check_own_models(plan: Plan, source: str) -> Iterator[str]:
    """Try the models of each arm that are the user's own.

    Yields:
        Warnings.

    Raises:
        UserError: a model cannot be trained; of those that a search suggests, none can.
    """
    vocab_size = plan.corpus.vocab_size
    sizes = [len(plan.corpus.train), len(plan.corpus.validation)]
    of_arm: dict[int, list[TrialConfig]] = {}
    for trial in (*plan.trials, *plan.examples):
        of_arm.setdefault(plan.arms[trial.key], []).append(trial)
    for index, trials in of_arm.items():
        is_searched = bool(plan.sweep.arms[index].search)
        try:
            yield from check_models(
                trials, vocab_size, sizes, lambda trial: fits_here(trial, vocab_size), is_searched
            )
        except UserError as error:
            raise UserError(f"{source}: arms[{index}]: {error}") from None


def _naming_overrides(message: str, overrides: Sequence[str]) -> str:
    """A message on a value, with the overrides that gave it."""
    names = {text: text.partition("=")[0].rpartition(".")[2] for text in overrides}
    given = [text for text, name in names.items() if re.search(rf"\b{re.escape(name)}\b", message)]
    return f"{message} (by the override {', '.join(map(brief, given))})" if given else message


def training_tokens(trial: TrialConfig) -> int:
    """Tokens that a trial trains on."""
    training = trial.training
    return training.last_step * training.batch_size * training.block_size


def override(sweep: SweepFile, assignments: Sequence[str]) -> SweepFile:
    """Change a sweep by ``path=value``; ``path=a,b`` tries both values.

    A path of a trial (``model.X``, ``training.X``) holds for every arm whose model has that
    setting, and replaces what the arm gives, sweeps or searches there; a range is searched:
    ``path={low: 1e-3, high: 1e-1, log: true}``. ``seed=7`` is the first seed of the
    replicates, ``seed=7,8`` and ``replicates=[7,8]`` are all of them. Values are YAML, but a
    setting that is text takes what is written as it is.

    Raises:
        UserError: the form, the path or the value is wrong; the message names the override.
    """
    for assignment in assignments:
        try:
            sweep = _overridden(sweep, assignment)
        except UserError as error:
            raise UserError(f"override {brief(without_password(assignment))}: {error}") from None
    return sweep


def _overridden(sweep: SweepFile, assignment: str) -> SweepFile:
    path, equals, text = assignment.partition("=")
    if not equals:
        raise UserError("write it as path=value, such as training.max_steps=100")
    data = sweep.model_dump()
    if path == "seed" and "," in text:
        path, text = "replicates", f"[{text.removeprefix('[').removesuffix(']')}]"
    if path.partition(".")[0] in SweepFile.model_fields and not path.startswith("training."):
        _assign(data, path.split("."), read_value(text, path))
        return validate(SweepFile, data, "")
    fields = [_setting_fields(arm.model) for arm in sweep.arms]
    if not any(path in known for known in fields):
        raise UserError(unknown_setting(path, {*itertools.chain(*fields), *data}))
    for known, raw in zip(fields, data["arms"], strict=True):
        if path in known:
            values = read_values(text, known[path].annotation)
            is_range = len(values) == 1 and isinstance(values[0], dict)
            raw["search" if is_range else "grid"][path] = values[0] if is_range else values
            raw["grid" if is_range else "search"].pop(path, None)
    return validate(SweepFile, data, "")


def expand(sweep: SweepFile, corpus: Corpus, source: str, is_here: bool = False) -> Plan:
    """Build all trials of a sweep.

    Args:
        sweep: the file, overrides applied.
        corpus: its corpus.
        source: what to call the file in messages.
        is_here: as `make_plan` has it.

    Raises:
        UserError: a value cannot be, a grid is empty, a trial occurs twice, or it is all too large.
    """
    check_counts(sweep, source)
    validate(TrainingConfig, sweep.training, f"{source}: training")
    arm_of_key: dict[str, int] = {}
    trials = []
    searched = []
    seeds = list(sweep.seeds)
    variants = [arm.model.get("variant") for arm in sweep.arms if arm.search]
    if variants:  # and with those of the winners, to be compared
        seeds += sweep.confirm_seeds
    for index, arm in enumerate(sweep.arms):
        where = f"{source}: arms[{index}]"
        for combination, settings in _combinations(sweep, arm, corpus, where):
            if arm.search:
                label = arm.model["variant"]
                if variants.count(label) > 1:
                    label += f" (arms[{index}])"
                searched.append((_searched(index, arm, label, settings, where), combination))
                continue
            first = TrialConfig.from_dict({**settings, "seed": seeds[0]}, where)
            _check_block(first, corpus, where)
            for seed in seeds:
                trial = first.with_seed(seed, where)
                if trial.key in arm_of_key:
                    raise UserError(
                        f"{where} repeats a trial of arms[{arm_of_key[trial.key]}]:"
                        f" {describe(trial.flat)}; remove one of them"
                    )
                arm_of_key[trial.key] = index
                trials.append(trial)
    examples = []
    for arm_in_cell, _ in searched:
        for example in arm_in_cell.examples(sweep.seeds[0]):
            _check_block(example, corpus, arm_in_cell.where)
            arm_of_key.setdefault(example.key, arm_in_cell.index)
            examples.append(example)
    studies = make_study_specs(searched)
    labels = [cell.label for cell in studies]
    if twice := next((label for label, count in Counter(labels).items() if count > 1), ""):
        raise UserError(
            f"{source}: the grid has the study {brief(twice)} twice; remove one of them"
        )
    budget = sweep.search.budget
    if budget is not None and budget < len(studies):
        raise UserError(
            f"{source}: search.trials={budget} is less than a suggestion for each of the"
            f" {len(studies)} studies; give {len(studies)} or more"
        )
    _check_constraints(sweep.search, examples, source)
    check_sizes((*trials, *examples), corpus.vocab_size, source, 1 if is_here else FAR)
    plan = Plan(sweep, corpus, tuple(trials), studies, tuple(examples), arms=arm_of_key)
    return replace(plan, sizes=_sizes(plan, source)) if studies else plan


def _sizes(plan: Plan, source: str) -> dict[str, int]:
    """The studies that have fewer configurations than suggestions, with how many, by label.

    Raises:
        UserError: one of them has none.
    """
    sizes = {}
    constraints, seed = plan.sweep.search.constraints, plan.sweep.seeds[0]
    enough, small = plan.share or math.inf, MOST // len(plan.studies)
    for cell in plan.studies:
        found = allowed(cell, constraints, seed, enough, small)
        if not found.keys:
            count = f"{found.looked_at:,}"
            which = f"the {count}" if found.is_all else f"{count} random"
            raise UserError(
                f"{source}: search.constraints: none of {which} configurations of the study"
                f" {cell.label} satisfies them; loosen them, or narrow the ranges to where they"
                " hold"
            )
        if found.is_all and len(found.keys) < enough:
            sizes[cell.label] = len(found.keys)
    return sizes


def _check_block(trial: TrialConfig, corpus: Corpus, where: str) -> None:
    try:
        corpus.check_block(trial.training.block_size)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def describe(settings: Mapping[str, Any]) -> str:
    """``name=value`` pairs in one line."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _combinations(
    sweep: SweepFile, arm: Arm, corpus: Corpus, where: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The combinations of an arm's grid by path, each with the settings of its trials."""
    known = _setting_fields(arm.model, f"{where}.model")
    parts: dict[str, Mapping[str, Any]] = {"grid": arm.grid, "search": arm.search}
    for part, given in parts.items():
        for path, values in given.items():
            if path == "seed":
                seeds = getattr(values, "choices", values)
                raise UserError(
                    f"{where}.{part}.seed: all arms have the same seeds, so that they can be"
                    f" compared; write `replicates: {brief(seeds or 3)}` for the sweep"
                )
            _check_path(path, known, f"{where}.{part}")
    for path, values in arm.grid.items():
        if not values:
            raise UserError(f"{where}.grid.{path}: the list is empty; give at least one value")
        if path in arm.search:
            raise UserError(
                f"{where}.search.{path}: the grid has it too; what is compared belongs into the"
                " grid, what is tuned into the search"
            )
    for chosen in itertools.product(*arm.grid.values()):
        combination = dict(zip(arm.grid, chosen, strict=True))
        settings: dict[str, Any] = {
            "model": dict(arm.model),
            "training": {**sweep.training, **arm.training},
            "corpus": corpus.name,
            "corpus_digest": corpus.digest,
        }
        for path, value in combination.items():
            _assign(settings, path.split("."), value)
        yield combination, settings


def _searched(
    index: int, arm: Arm, label: str, settings: Mapping[str, Any], where: str
) -> SearchedArm:
    """An arm of a search, its ranges in the types of its settings."""
    types = _setting_fields(arm.model, where)
    space: dict[str, Parameter] = {}
    for path, parameter in arm.search.items():
        for other in parameter.when:
            _check_path(other, types, f"{where}.search.{path}.when")
            known = space[other].choices if other in space else None
            if known and (odd := [one for one in parameter.when[other] if one not in known]):
                raise UserError(
                    f"{where}.search.{path}.when.{other}: {brief(odd[0])} is not one of its"
                    f" choices, {brief(known)}"
                )
            if other in arm.search and other not in space:
                raise UserError(
                    f"{where}.search.{path}.when: {other} must come before it, as it decides"
                    " whether there is anything to choose"
                )
        space[path] = _in_type(parameter, types[path].annotation, f"{where}.search.{path}")
    given = {f"{part}.{n}": v for part in ("model", "training") for n, v in settings[part].items()}
    defaults = {path: field.get_default() for path, field in types.items()} | given
    return SearchedArm(index, label, settings, space, defaults, where)


def _in_type(parameter: Parameter, annotation: Any, where: str) -> Parameter:
    """A range of numbers as the setting wants them: whole ones, or not."""
    if parameter.choices is not None:
        whole = annotation is float and all(type(one) is int for one in parameter.choices)
        choices = [float(one) for one in parameter.choices] if whole else parameter.choices
        return parameter.model_copy(update={"choices": choices})
    ends = {name: getattr(parameter, name) for name in ("low", "high", "step")}
    if annotation is int:
        for name, value in ends.items():
            if isinstance(value, float):
                raise UserError(f"{where}.{name}: must be a whole number, not {value}")
        return parameter
    if annotation is not float:
        raise UserError(f"{where}: this setting is no number; give a list of choices")
    floats = {name: float(value) for name, value in ends.items() if value is not None}
    return parameter.model_copy(update=floats)


def _check_constraints(search: SearchSpec, examples: Sequence[TrialConfig], source: str) -> None:
    names = {name for example in examples for name in example.flat}
    for number, text in enumerate(search.constraints):
        try:
            unknown = names_in(text) - names
            if unknown:
                raise UserError(unknown_setting(min(unknown), names))
            for example in examples:
                holds(text, example.flat)
        except UserError as error:
            raise UserError(f"{source}: search.constraints[{number}]: {error}") from None


def _setting_fields(model: Mapping[str, Any], where: str = "model") -> dict[str, FieldInfo]:
    """What an arm may sweep, by dotted path: its variant's settings and the training's."""
    settings = schema_of(model, where).model_fields
    return {
        **{f"model.{name}": field for name, field in settings.items()},
        **{f"training.{name}": field for name, field in TrainingConfig.model_fields.items()},
    }


def _check_path(path: str, known: Iterable[str], where: str) -> None:
    if path not in known:
        short = {path.rpartition(".")[2]: path for path in known}
        name = path.rpartition(".")[2]
        options = short if path.startswith(("model.", "training.")) else known
        raise UserError(f"{where}.{path}: {unknown_setting(name, options)}")


def _assign(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested value by its path."""
    *parents, name = path
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        data = data[parent]
        if not isinstance(data, dict):
            raise UserError(f"{'.'.join(path)}: {parent} has no settings")
    data[name] = value
