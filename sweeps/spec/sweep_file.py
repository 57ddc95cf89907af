"""The sweep file: what to try, on what, with which resources."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from analysis.errors import listed
from analysis.plain_yaml import YamlError, read_yaml
from sweeps.spec.passwords import Uri
from sweeps.spec.search_spec import Parameter, Replicates, SearchSpec
from trainables.errors import UserError, brief, validate
from trainables.persistence.storage import check_uri
from trainables.settings import LARGEST, Count, Frozen, Seed

PRESETS = resources.files("sweeps") / "presets"
AUTO, OFF = "auto", "off"
SMALLEST_SHARE = 0.0001  # of a CPU or GPU, that Ray knows
SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_gpus(given: Any) -> Any:
    """Refuse what is neither `auto` nor a number of GPUs."""
    if given == AUTO:
        return given
    if type(given) not in (int, float) or not math.isfinite(given) or given < 0:
        raise ValueError(f"give {AUTO}, or a number of GPUs, 0 or more, not {brief(given)}")
    return float(given)


def check_pack(given: Any) -> Any:
    """Refuse what is neither `auto`, `off` nor a number of trials."""
    if given is False:  # what YAML makes of `off`
        return OFF
    if given in (AUTO, OFF):
        return given
    if type(given) is not int or not 1 <= given <= LARGEST:
        raise ValueError(f"give {AUTO}, {OFF}, or a number of trials, not {brief(given)}")
    return given


Pack = Annotated[Literal["auto", "off"] | int, BeforeValidator(check_pack)]
Gpus = Annotated[Literal["auto"] | float, BeforeValidator(check_gpus)]


class Arm(Frozen):
    """A model with fixed values, and a grid over some of its settings or the training's.

    The keys of the grid are dotted paths (``model.n_embd``, ``training.block_size``), each with the
    list of values to try; the arm's trials are all combinations, each with all seeds of the sweep.

    With ``search``, the other settings there are tuned: once for each combination of the grid, or,
    by arms that have no grid, once for all of these arms together. So what is in the grid is
    compared (scientific), what is in the search is tuned for each of these (nuisance), and the rest
    is fixed.
    """

    model: dict[str, Any]
    training: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    search: dict[str, Parameter] = Field(default_factory=dict)


class Resources(Frozen):
    """What one trial gets, and how many may run at once (as many as fit by default).

    Trials of equal shapes may train together as one, a pack, which counts as one trial here:
    ``pack`` is how many at most; `auto` measures what pays on a GPU, and is `off` on CPUs.

    On a cluster sweeps that run at the same time share it by ``priority``: twice the priority,
    twice the share.
    """

    cpus_per_trial: PositiveFloat = 1
    gpus_per_trial: Gpus = 0.0  # a fraction shares a GPU; above 1 whole numbers only
    pack: Pack = "auto"
    max_concurrent: Count | None = None
    priority: PositiveFloat = 1
    max_failures: Count = 3  # a trial that failed so often by itself is not tried again

    @field_validator("gpus_per_trial", "cpus_per_trial")
    @classmethod
    def _can_be_placed(cls, amount: float | str) -> float | str:
        if isinstance(amount, str):
            return amount
        if amount > 1 and amount != int(amount):
            raise ValueError(f"must be at most 1 or a whole number, not {amount}")
        if 0 < amount < SMALLEST_SHARE:
            raise ValueError(f"must be at least {SMALLEST_SHARE}, not {amount}")
        return amount

    @property
    def is_auto(self) -> bool:
        """Whether the GPUs of a trial are still to be chosen; `sweeps.resources.gpus` does."""
        return self.gpus_per_trial == AUTO

    @property
    def gpus(self) -> float:
        """The GPUs of a trial, which are chosen by now."""
        assert not isinstance(self.gpus_per_trial, str)
        return self.gpus_per_trial

    @property
    def is_packing(self) -> bool:
        """Whether trials may train together."""
        return self.pack not in (OFF, 1)

    def settled(self, gpus: float) -> Resources:
        """The same, with a number of GPUs in the place of `auto`."""
        return self.model_copy(update={"gpus_per_trial": float(gpus)}) if self.is_auto else self


class TrackingSpec(Frozen):
    """Where the runs go: an MLflow tracking URI, or a store in the state directory by default."""

    uri: Uri | None = None


class StorageSpec(Frozen):
    """Where the trials keep their files: the state directory by default.

    Else a path that all machines share, or an fsspec URI such as s3://bucket/prefix.
    """

    uri: Uri | None = None

    @field_validator("uri")
    @classmethod
    def _may_be_shared(cls, uri: str | None) -> str | None:
        if uri is not None:
            check_uri(uri)
        return uri


class SweepFile(Seed):
    """A sweep as its author wrote it: its shape is checked here, its values by `make_plan`.

    ``replicates`` are the seeds that each configuration is trained with: a number counts up from
    ``seed``, a list names them. Configurations of a seed draw the same batches and start from the
    same values where their shapes agree, so their losses can be compared in pairs.
    """

    name: str
    description: str = ""
    corpus: str = "tinyshakespeare"
    training: dict[str, Any] = Field(default_factory=dict)
    replicates: Replicates = 1
    arms: Annotated[list[Arm], Field(min_length=1)]
    search: SearchSpec = SearchSpec()
    resources: Resources = Resources()
    tracking: TrackingSpec = TrackingSpec()
    storage: StorageSpec = StorageSpec()

    @property
    def seeds(self) -> list[int]:
        """The seeds of every configuration."""
        if isinstance(self.replicates, list):
            return self.replicates
        return [self.seed + number for number in range(self.replicates)]

    @property
    def confirm_seeds(self) -> list[int]:
        """The seeds that confirm what a search found; none of them is one of its own."""
        wanted = self.search.confirm.replicates if self.search.confirm else []
        if isinstance(wanted, list):
            return wanted
        first = max(self.seeds) + 1
        return list(range(first, first + wanted))

    @property
    def is_searched(self) -> bool:
        """True if some arm has settings that a search chooses."""
        return any(arm.search for arm in self.arms)

    @property
    def grid_seeds(self) -> list[int]:
        """The seeds of each configuration of a grid: those of winners too, to compare them."""
        return self.seeds + (self.confirm_seeds if self.is_searched else [])

    @field_validator("name")
    @classmethod
    def _can_be_a_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                "write 1 to 100 letters, digits, '_', '-' or '.', the first a letter or digit,"
                f" not {brief(name)}"
            )
        if name.lower().endswith(".csv"):
            raise ValueError(f"the name {name} would be a file to `analysis`; leave out .csv")
        if name.lower() == "default":
            raise ValueError(
                f"the name {name} is of an experiment that MLflow makes; choose another"
            )
        return name

    @model_validator(mode="after")
    def _search_can_be(self) -> SweepFile:
        if max(self.grid_seeds) >= 2**64:
            raise ValueError(f"seeds count up from {self.seed} to 2**64 or more; lower the seed")
        if old := set(self.confirm_seeds) & set(self.seeds):
            raise ValueError(
                f"search.confirm.replicates has the seed {min(old)}, with which the search itself"
                " trains; name others"
            )
        if self.search != SearchSpec() and not self.is_searched:
            raise ValueError(
                "search is given, but no arm has a `search` that says what may be chosen"
            )
        return self


def load_sweep(name_or_path: str) -> tuple[SweepFile, str]:
    """Read a sweep file, or a preset by its name.

    Returns:
        The sweep, and what to call its source in messages.

    Raises:
        UserError: there is no such file or preset, or its content is refused.
    """
    path = find_sweep(name_or_path)
    try:
        data = read_yaml(path)
    except YamlError as error:
        raise UserError(f"{path}: {error}") from None
    return validate(SweepFile, data, f"{path.name}: "), path.name


def find_sweep(name_or_path: str) -> Path:
    """The file of a preset's name or of a path.

    Raises:
        UserError: there is neither, the message names the presets; or it cannot be read.
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
    near = _nearest_sweep(path, presets)
    meant = f"; did you mean {near}?" if near else ""
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise UserError(f"there is no sweep file {name_or_path}{meant}")
    raise UserError(
        f"there is no preset {name_or_path!r} and no file of that name"
        f"{meant or f'; presets: {listed(presets)}'}"
    )


def _nearest_sweep(path: Path, presets: Iterable[str]) -> str:
    """The preset, or the sweep file beside a path, that its name resembles; empty if none does."""
    known = {name: name for name in presets}
    if path.parent.is_dir():
        files = [file for suffix in SUFFIXES for file in path.parent.glob(f"*{suffix}")]
        known |= {file.stem: str(file) for file in files}
    near = difflib.get_close_matches(path.stem, known, n=1)
    return known[near[0]] if near else ""


def preset_files() -> dict[str, Path]:
    """The presets that come with the package, by name."""
    paths = sorted(Path(str(PRESETS)).glob("*.yaml"))
    return {path.stem: path for path in paths}
