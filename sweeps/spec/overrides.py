"""How the value of an override is read: as YAML, but text as it is."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from analysis.text.plain_yaml import YamlError, parse_yaml
from sweeps.spec.sweep_file import SweepFile
from trainables.errors import UserError


def read_value(text: str, path: str) -> Any:
    """The value for a setting of the sweep; nothing at all is null.

    Raises:
        UserError: it is not YAML, or is more than one value.
    """
    kind = _type_at(path)
    if _is_text(kind):
        return None if text in ("", "null") and kind is not str else _checked(text)
    values = _listed(text)
    if len(values) > 1:
        raise UserError("give one value; a list stands in brackets, such as [1, 2]")
    return values[0] if values else None


def read_values(text: str, kind: Any) -> list[Any]:
    """The values for a setting of trials: between commas, with brackets around them or without.

    Args:
        text: what follows the equals sign.
        kind: the type of the setting.

    Raises:
        UserError: it is not YAML.
    """
    in_brackets = text.startswith("[") and text.endswith("]")
    if _is_text(kind) and text and not in_brackets:
        return [_checked(part.strip()) for part in text.split(",")]
    values = _listed(text)
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _listed(text: str) -> list[Any]:
    """What stands between commas, as YAML."""
    try:
        values: list[Any] = parse_yaml(f"[{text}]")
    except YamlError as error:
        raise UserError(error.problem) from None
    return values


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the value is not UTF-8") from None
    return text


def _type_at(path: str) -> Any:
    """The type of a setting of the sweep; None where there is no such setting."""
    kind: Any = SweepFile
    for name in path.split("."):
        settings = [
            each
            for each in (kind, *get_args(kind))
            if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        if not settings or name not in settings[0].model_fields:
            return None
        kind = settings[0].model_fields[name].annotation
    return kind


def _is_text(kind: Any) -> bool:
    """Whether a setting is text: any, some words, or one of these or null."""
    if get_origin(kind) is Annotated:
        return _is_text(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return all(_is_text(each) for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        return all(isinstance(word, str) for word in get_args(kind))
    return kind is str
