"""The sweep file: what to try, on what, with which resources."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from analysis.errors import listed
from analysis.text.plain_yaml import YamlError, read_yaml
from sweeps.spec.decide_spec import FIRST_SEEDS, DecideSpec
from sweeps.spec.passwords import Uri
from sweeps.spec.search_spec import Parameter, Replicates, SearchSpec
from trainables.errors import UserError, brief, similar_name, validate
from trainables.persistence.storage import check_uri
from trainables.settings import LARGEST, Count, Frozen, Seed

PRESETS = resources.files("sweeps") / "presets"
AUTO, OFF = "auto", "off"
MOST_TEST = 0.5  # of a text
SMALLEST_SHARE = 0.0001  # of a CPU or GPU, that Ray knows
SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_gpus(given: object) -> str | float:
    """Return `auto`, or a number of GPUs.

    Raises:
        ValueError: it is neither.
    """
    if given == AUTO:
        return AUTO
    is_bool = isinstance(given, bool)
    if isinstance(given, int | float) and not is_bool and math.isfinite(given) and given >= 0:
        return float(given)
    raise ValueError(f"give {AUTO}, or a number of GPUs, 0 or more, not {brief(given)}")


def check_pack(given: object) -> str | int:
    """Return `auto`, `off`, or a number of trials.

    Raises:
        ValueError: it is none of these.
    """
    if given is False:  # as some YAML readers read `off`
        return OFF
    if isinstance(given, str) and given in (AUTO, OFF):
        return given
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= LARGEST:
        return given
    raise ValueError(f"give {AUTO}, {OFF}, or a number of trials, not {brief(given)}")


Pack = Annotated[Literal["auto", "off"] | int, BeforeValidator(check_pack)]
Gpus = Annotated[Literal["auto"] | float, BeforeValidator(check_gpus)]


class Arm(Frozen):
    """A model with fixed settings, and a grid over other settings of the model or the training.

    The keys of the grid are dotted paths (``model.n_embd``, ``training.block_size``), each with the
    list of values to try; the arm's trials are all combinations, each with all seeds of the sweep.

    The settings under ``search`` are tuned: once for each combination of the grid, or once for all
    arms without a grid together. So settings of the grid are compared (scientific), settings of the
    search are tuned for each combination (nuisance), and the others are fixed.
    """

    model: dict[str, object]
    training: dict[str, object] = Field(default_factory=dict)
    grid: dict[str, list[object]] = Field(default_factory=dict)
    search: dict[str, Parameter] = Field(default_factory=dict)


class Resources(Frozen):
    """CPUs and GPUs of a trial, and the most trials at once (by default as many as fit).

    Trials of equal shapes may train together in a pack, which counts as one trial here. ``pack`` is
    the most trials of a pack; `auto` is as many as fit into the memory of a GPU, and `off` on CPUs.

    Sweeps that run on a cluster at the same time share it by ``priority``: a sweep with twice the
    priority gets twice the share.
    """

    cpus_per_trial: PositiveFloat = 1
    gpus_per_trial: Gpus = "auto"  # a fraction shares a GPU; above 1 whole numbers only
    pack: Pack = "auto"
    max_concurrent: Count | None = None
    priority: PositiveFloat = 1
    max_failures: Count = 3  # of a trial by its own fault; then it is not tried again

    @field_validator("gpus_per_trial", "cpus_per_trial")
    @classmethod
    def _check_amount(cls, amount: float | str) -> float | str:
        if isinstance(amount, str):
            return amount
        if amount > 1 and amount != int(amount):
            raise ValueError(f"must be at most 1 or a whole number, not {amount}")
        if 0 < amount < SMALLEST_SHARE:
            raise ValueError(f"must be at least {SMALLEST_SHARE}, not {amount}")
        return amount

    @property
    def is_auto(self) -> bool:
        """True if the GPUs of a trial are still to be chosen, by `sweeps.resources.gpus`."""
        return self.gpus_per_trial == AUTO

    @property
    def gpus(self) -> float:
        """The GPUs of a trial; they must have been chosen."""
        assert not isinstance(self.gpus_per_trial, str)
        return self.gpus_per_trial

    @property
    def may_use_gpus(self) -> bool:
        """True unless the sweep file says that trials train on CPUs."""
        return self.gpus_per_trial != 0

    @property
    def is_packing(self) -> bool:
        """True if trials may train together in packs."""
        return self.pack not in (OFF, 1)

    def settled(self, gpus: float) -> Resources:
        """Return the same resources, with a number of GPUs in the place of `auto`."""
        return self.model_copy(update={"gpus_per_trial": float(gpus)}) if self.is_auto else self


class CorpusSpec(Frozen):
    """The text: its name, and the share of it that is a test split, at its end.

    ``corpus: NAME`` is short for ``corpus: {name: NAME}``. Only trials that no search suggested get
    a test_loss, once, at their end.
    """

    name: str = "tinyshakespeare"
    test: float = Field(default=0.0, ge=0, le=MOST_TEST)


def read_corpus(given: object) -> object:
    """Return the settings of a corpus, of which its name may stand for all.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, dict | CorpusSpec):
        return given
    raise ValueError(f"give a name, or {{name: NAME, test: 0.05}}, not {brief(given)}")


class TrackingSpec(Frozen):
    """Where runs are stored: an MLflow tracking URI, or by default the state directory."""

    uri: Uri | None = None


class StorageSpec(Frozen):
    """Where trials store their files: by default the state directory.

    Otherwise a path that all machines share, or an fsspec URI such as s3://bucket/prefix.
    """

    uri: Uri | None = None

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str | None) -> str | None:
        if uri is not None:
            check_uri(uri)
        return uri


class SweepFile(Seed):
    """A sweep as its author wrote it. The form is checked here, the values by `make_plan`.

    ``replicates`` are the seeds that each configuration is trained with: a number counts up from
    ``seed``, a list names them; by default one, and three of a grid with claims to ``decide``,
    which adds further seeds. Configurations with the same seed draw the same batches, and the
    same initial values where their shapes agree, so their losses can be compared in pairs.
    """

    name: str
    description: str = ""
    corpus: Annotated[CorpusSpec, BeforeValidator(read_corpus)] = CorpusSpec()
    training: dict[str, object] = Field(default_factory=dict)
    replicates: Replicates | None = None
    arms: Annotated[list[Arm], Field(min_length=1)]
    search: SearchSpec = SearchSpec()
    decide: DecideSpec | None = None
    resources: Resources = Resources()
    tracking: TrackingSpec = TrackingSpec()
    storage: StorageSpec = StorageSpec()

    @property
    def seeds(self) -> list[int]:
        """The seeds of every configuration, but for those that `decide` adds."""
        if isinstance(self.replicates, list):
            return self.replicates
        is_decided = self.decide is not None and not self.is_searched
        count = self.replicates or (FIRST_SEEDS if is_decided else 1)
        return [self.seed + number for number in range(count)]

    @property
    def confirm_seeds(self) -> list[int]:
        """The seeds that confirm the best configurations of a search: none of its own seeds."""
        replicates = self.search.confirm.replicates if self.search.confirm else []
        if isinstance(replicates, list):
            return replicates
        first = max(self.seeds) + 1
        return list(range(first, first + replicates))

    @property
    def is_searched(self) -> bool:
        """True if some arm has settings that a search chooses."""
        return any(arm.search for arm in self.arms)

    @property
    def grid_seeds(self) -> list[int]:
        """The seeds of each configuration of a grid: those of winners too, to compare them."""
        return self.seeds + (self.confirm_seeds if self.is_searched else [])

    @property
    def tested_seeds(self) -> list[int]:
        """The seeds by which claims compare trials, in their order; `decide` adds the later ones.

        Of a sweep with a search these are the seeds that its winners are confirmed with.
        """
        first = sorted(self.confirm_seeds if self.is_searched else self.seeds)
        if self.decide is None:
            return first
        start = max(self.grid_seeds) + 1
        return first + list(range(start, start + self.decide.max_seeds - len(first)))

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                "write 1 to 100 letters, digits, '_', '-' or '.', the first a letter or digit,"
                f" not {brief(name)}"
            )
        if name.lower().endswith(".csv"):
            raise ValueError(f"the name {name} would be a file to `analysis`; leave out .csv")
        if name.lower() == "default":
            raise ValueError(
                f"the name {name} belongs to an experiment that MLflow makes; choose another"
            )
        return name

    @model_validator(mode="after")
    def _check_search(self) -> SweepFile:
        if max(self.grid_seeds) >= 2**64:
            raise ValueError(f"seeds count up from {self.seed} to 2**64 or more; lower the seed")
        if shared := set(self.confirm_seeds) & set(self.seeds):
            raise ValueError(
                f"search.confirm.replicates has the seed {min(shared)}, with which the search"
                " itself trains; name others"
            )
        if self.search != SearchSpec() and not self.is_searched:
            raise ValueError(
                "search is given, but no arm has a `search` that says what may be chosen"
            )
        return self

    @model_validator(mode="after")
    def _check_decide(self) -> SweepFile:
        if self.decide is None:
            return self
        first = self.confirm_seeds if self.is_searched else self.seeds
        name = "search.confirm.replicates" if self.is_searched else "replicates"
        if len(first) < 2:
            raise ValueError(
                f"decide compares configurations by the spread of their seeds, and {name} has"
                f" {len(first)}; give 2 or more"
            )
        if self.decide.max_seeds < len(first):
            raise ValueError(
                f"decide.max_seeds={self.decide.max_seeds} is less than the {len(first)} seeds of"
                f" {name}, with which each configuration begins"
            )
        if max(self.tested_seeds) >= 2**64:
            raise ValueError("the seeds that decide adds count up to 2**64 or more; lower the seed")
        return self


def load_sweep(name_or_path: str) -> tuple[SweepFile, str]:
    """Read a sweep file, or a preset by its name.

    Returns:
        The sweep, and the name of its file for messages.

    Raises:
        UserError: there is no such file or preset, or its content is wrong.
    """
    path = find_sweep(name_or_path)
    try:
        data = read_yaml(path)
    except YamlError as error:
        raise UserError(f"{path}: {error}") from None
    sweep = validate(SweepFile, data, f"{path.name}: ")
    if sweep.decide:
        sweep = sweep.model_copy(update={"decide": sweep.decide.beside(path.parent)})
    return sweep, path.name


def find_sweep(name_or_path: str) -> Path:
    """Return the path of a sweep file, given that path or the name of a preset.

    Raises:
        UserError: there is no such file or preset, or the file cannot be read.
    """
    presets = preset_files()
    if name_or_path in presets:
        return presets[name_or_path]
    path = Path(name_or_path)
    try:
        is_file, is_there = path.is_file(), path.exists()
    except OSError as error:
        raise UserError(f"{brief(name_or_path)} cannot be read: {error.strerror}") from None
    if is_file:
        return path
    if is_there:
        raise UserError(f"{name_or_path} is not a file")
    near = _similar_sweep(path, presets)
    meant = f"; did you mean {near}?" if near else ""
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise UserError(f"there is no sweep file {name_or_path}{meant}")
    raise UserError(
        f"there is no preset {name_or_path!r} and no file of that name"
        f"{meant or f'; presets: {listed(presets)}'}"
    )


def _similar_sweep(path: Path, presets: Iterable[str]) -> str | None:
    """Return the preset, or the sweep file in the path's folder, with the most similar name."""
    known = {name: name for name in presets}
    if path.parent.is_dir():
        files = [file for suffix in SUFFIXES for file in path.parent.glob(f"*{suffix}")]
        known |= {file.stem: str(file) for file in files}
    near = similar_name(path.stem, known)
    return known[near] if near else None


def preset_files() -> dict[str, Path]:
    """Return the files of the presets that come with the package, by name."""
    paths = sorted(Path(str(PRESETS)).glob("*.yaml"))
    return {path.stem: path for path in paths}
