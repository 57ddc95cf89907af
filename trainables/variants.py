"""Reads the ``model`` of a sweep file: a model class and its settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, create_model

import bigram_models
from bigram_models import VARIANTS, LanguageModel
from trainables.errors import UserError, brief, type_and_message, unknown_setting, validate
from trainables.own_modules import import_own

NOT_OWN = (  # places without code of a user's own model
    "<",
    sysconfig.get_path("stdlib"),
    str(Path(__file__).parent),
    str(Path(bigram_models.__file__).parent),
)


@dataclass(frozen=True)
class ModelConfig:
    """A variant by name, and its settings."""

    variant: str
    settings: Any  # an instance of the variant's ``Config``, which each variant defines itself

    @property
    def model_class(self) -> type[LanguageModel]:
        """The class of the variant."""
        return model_class(self.variant)

    def build(self, vocab_size: int, block_size: int, generator: torch.Generator) -> LanguageModel:
        """Return a new model with initial values from the generator."""
        make: Callable[..., LanguageModel] = self.model_class
        return make(self.settings, vocab_size, block_size, generator)

    @functools.cached_property
    def code_digest(self) -> str | None:
        """sha256 of a user's own module; None for a shipped variant, which has a result version."""
        if self.variant in VARIANTS:
            return None
        source = inspect.getsourcefile(self.model_class)
        assert source is not None
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()

    @functools.cached_property
    def values(self) -> Mapping[str, object]:
        """The settings by name."""
        return dataclasses.asdict(self.settings)

    def to_dict(self) -> dict[str, object]:
        """Return plain data that `parse_model` reads."""
        return {"variant": self.variant, **self.values}


def parse_model(data: Mapping[str, object], where: str, reserved: Collection[str]) -> ModelConfig:
    """Read ``{variant: ..., **settings}``.

    Args:
        data: the mapping from the sweep file.
        where: its path there, for messages.
        reserved: names that settings of a model may not have.

    Raises:
        UserError: the variant or a setting does not exist, or a value is not valid.
    """
    schema, variant = schema_of(data, where), _variant(data, where)
    if clash := sorted(set(schema.model_fields) & set(reserved)):
        raise UserError(
            f"{where}.variant: {variant} has a setting {clash[0]!r}, which is"
            " one of the trial itself; give it another name"
        )
    settings = {name: value for name, value in data.items() if name != "variant"}
    with faults_of(where):
        values = validate(schema, settings, where).model_dump()
        try:
            model = ModelConfig(variant, model_class(variant).Config(**values))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        found = model.values
    try:
        json.dumps(found, sort_keys=True)  # for the key, and to store the trial
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: the settings of {variant} are no plain data: {error}") from None
    return model


def schema_of(data: Mapping[str, object], where: str) -> type[BaseModel]:
    """Return the schema of the settings of the variant that a ``model`` mapping names.

    Raises:
        UserError: it names no variant, or one that does not exist.
    """
    variant = _variant(data, where)
    try:
        return settings_schema(variant)
    except UserError as error:
        raise UserError(f"{where}.variant: {error}") from error.__cause__


def _variant(data: Mapping[str, object], where: str) -> str:
    variant = data.get("variant")
    if not isinstance(variant, str):
        raise UserError(f"{where}.variant: name one of {', '.join(VARIANTS)}, or MODULE:CLASS")
    return variant


@functools.cache
def model_class(variant: str) -> type[LanguageModel]:
    """Return the class of a shipped variant, or of ``MODULE:CLASS`` for a user's own model.

    Raises:
        UserError: there is no such class, or it is not one of a model.
    """
    if variant in VARIANTS:
        return VARIANTS[variant]
    module_name, colon, class_name = variant.partition(":")
    if not colon or module_name[:1] in ("", "."):
        raise UserError(
            unknown_setting(variant, VARIANTS).replace("setting", "variant", 1)
            + "; a model of your own is MODULE:CLASS"
        )
    with faults_of(f"cannot import {brief(variant)}"):
        try:
            module = import_own(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # a module that this one imports is missing
            raise UserError(
                f"cannot import {brief(variant)} ({error!s:.200}); the module must lie in the"
                " working directory or be installed"
            ) from error
        found = getattr(module, class_name)
        if not (inspect.isclass(found) and issubclass(found, LanguageModel)):
            raise UserError(f"{brief(variant)} is not a subclass of bigram_models.LanguageModel")
        if not dataclasses.is_dataclass(getattr(found, "Config", None)):
            raise UserError(f"{brief(variant)} has no dataclass Config for its settings")
        source = inspect.getsourcefile(found)
        if source is None or not Path(source).is_file():
            raise UserError(
                f"{brief(variant)} has no source file, which is part of its trials' keys"
            )
    return found


@functools.cache  # pydantic takes a quarter of a millisecond for each
def settings_schema(variant: str) -> type[BaseModel]:
    """Return a strict schema of the fields of a variant's ``Config`` dataclass."""
    config = model_class(variant).Config
    strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    with faults_of(f"the Config of {brief(variant)} cannot be read"):
        hints = get_type_hints(config, include_extras=True)
        fields: dict[str, Any] = {  # Any: as pydantic's create_model has it
            field.name: (hints[field.name], _default(field)) for field in dataclasses.fields(config)
        }
        return create_model(config.__qualname__, __config__=strict, **fields)


@contextmanager
def faults_of(prefix: str) -> Iterator[None]:
    """Context manager: turn any error of a user's own code into a `UserError` with its place.

    Such code may even exit, and Python and pydantic raise many kinds of errors for data that they
    cannot read.

    Args:
        prefix: the beginning of the message.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"{prefix}: {_place(error)}{type_and_message(error)}") from error


def _place(error: BaseException) -> str:
    """Return the last line of the user's own code in an error's traceback, as a prefix."""
    frames = traceback.extract_tb(error.__traceback__)
    files = [(frame.filename, frame.lineno) for frame in frames]
    own = [
        f"{file}:{line}: "
        for file, line in files
        if not file.startswith(NOT_OWN) and "site-packages" not in file
    ]
    return own[-1] if own else ""


def _default(field: dataclasses.Field[object]) -> object:
    """Return the default of a dataclass field for pydantic: ``...`` if there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ... if field.default is dataclasses.MISSING else field.default
