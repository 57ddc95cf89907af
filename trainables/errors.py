"""Errors that a user can act on, and validation of settings."""

from __future__ import annotations

import difflib
import reprlib
import types
from collections.abc import Iterable, Sequence
from typing import TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

PLAIN = {  # messages in place of pydantic's, which use Python's words, by type of error
    "bool_type": "should be true or false",
    "dict_type": "should be a map, name: value",
    "model_type": "should be a map, name: value",
}
KEY = "[key]"  # how pydantic ends the path of a key, after the key itself
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 80
_brief.maxlist = _brief.maxdict = 8
_brief.maxlevel = 3


class UserError(ValueError):
    """A mistake of the user; the message has the place and the remedy. Commands exit with 2."""


def reason_of(error: OSError) -> str:
    """Return the file and the reason of an error of the operating system, in a few words."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def type_and_message(error: BaseException) -> str:
    """Return the type and the message of an error in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:300]


def validate(model: type[Model], data: object, where: str) -> Model:
    """Build a settings object from plain data.

    Args:
        model: what the data should be.
        data: mappings, lists and scalars, as read from YAML.
        where: the place of the data, for messages: a path such as ``arms[2].model``, a source
            that ends with a colon and a space, or nothing.

    Raises:
        UserError: naming the first setting that is wrong, by its path.
    """
    try:
        return model.model_validate(data)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        is_key = error["loc"][-1:] == (KEY,)
        path = "".join(_step(part) for part in error["loc"][: -2 if is_key else None])
        if not where or where.endswith(": "):
            path = path.removeprefix(".")
        place = f"{where}{path}".removesuffix(": ")
        raise UserError(f"{place}{': ' if place else ''}{_explain(model, error)}") from None


def brief(value: object) -> str:
    """Return the representation of a value, shortened to about a line."""
    return _brief.repr(value)


def similar_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name that does not exist, or None."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """Return a message for an unknown setting, with the nearest known one or else all of them."""
    names = sorted(known)
    near = similar_name(name, names)
    remedy = f"did you mean {near!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown setting {brief(name)}; {remedy}"


def _step(part: int | str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isprintable() and len(part) <= 80 else f"[{brief(part)}]"


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    if error["loc"][-1:] == (KEY,):
        return f"the key {brief(error['input'])} should be text; put it in quotes"
    if error["type"] == "extra_forbidden":
        *parents, name = error["loc"]
        return unknown_setting(str(name), _fields_at(model, parents))
    message = str(error["msg"])
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] in ("missing", "value_error"):
        return message[0].lower() + message[1:]
    message = PLAIN.get(error["type"], message)
    return f"{message}, not {brief(error['input'])}"


def _fields_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the names of the settings at a path inside a model."""
    annotation: object = model
    for part in path:
        if get_origin(annotation) in (list, dict):  # of settings
            annotation = get_args(annotation)[-1]
        else:
            annotation = _model_in(annotation).model_fields[str(part)].annotation
    return list(_model_in(annotation).model_fields)


def _model_in(annotation: object) -> type[BaseModel]:
    """Return the settings class of an annotation such as ``Training`` or ``Training | None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    assert isinstance(annotation, type)
    assert issubclass(annotation, BaseModel)
    return annotation
