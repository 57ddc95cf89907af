"""Values of overrides: read as YAML, except that text settings take text as it is written."""

from __future__ import annotations

import types
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from analysis.text.plain_yaml import YamlError, parse_yaml
from sweeps.spec.sweep_file import SweepFile
from trainables.errors import UserError


def read_value(text: str, path: str) -> object:
    """Return the value for a setting of the sweep; an empty text is null.

    Args:
        text: the part after the equals sign.
        path: of the setting, with dots.

    Raises:
        UserError: the text is not YAML, or has more than one value.
    """
    kind = _type_at(path)
    if _is_text(kind):
        return None if text in ("", "null") and kind is not str else _checked(text)
    values = _parse_list(text)
    if len(values) > 1:
        raise UserError("give one value; a list stands in brackets, such as [1, 2]")
    return values[0] if values else None


def read_values(text: str, kind: object) -> list[object]:
    """Return the values for a setting of trials: a comma list, in brackets or without.

    Args:
        text: the part after the equals sign.
        kind: type annotation of the setting.

    Raises:
        UserError: the text is not YAML.
    """
    in_brackets = text.startswith("[") and text.endswith("]")
    if _is_text(kind) and text and not in_brackets:
        return [_checked(part.strip()) for part in text.split(",")]
    values = _parse_list(text)
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _parse_list(text: str) -> list[object]:
    """Return the values of a comma list, each read as YAML."""
    try:
        values: list[object] = parse_yaml(f"[{text}]")
    except YamlError as error:
        raise UserError(error.problem) from None
    return values


def _checked(text: str) -> str:
    """Return the text unchanged, or refuse it if it is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the value is not UTF-8") from None
    return text


def _type_at(path: str) -> object:
    """Return the type annotation of a setting of the sweep, or None if it does not exist."""
    kind: object = SweepFile
    for name in path.split("."):
        settings = [
            part
            for part in (kind, *get_args(kind))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if not settings or name not in settings[0].model_fields:
            return None
        kind = settings[0].model_fields[name].annotation
    return kind


def _is_text(kind: object) -> bool:
    """Return whether a type annotation is text: any text, certain words, or either or null."""
    if get_origin(kind) is Annotated:
        return _is_text(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return all(_is_text(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return all(isinstance(word, str) for word in get_args(kind))
    return kind is str
