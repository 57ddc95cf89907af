"""Passwords are refused in sweep files and commands, which others can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import click
from click.core import ParameterSource
from pydantic import AfterValidator

from analysis.text.messages import without_password
from trainables.errors import UserError


def refuse_password(uri: str) -> str:
    """Return the URI unchanged.

    Raises:
        UserError: the URI has a password, which the message does not show.
    """
    if without_password(uri) != uri:
        raise UserError(
            "a password in a command or a sweep file is seen by others; give it by the environment"
            " of the machine that needs it, as MLFLOW_TRACKING_PASSWORD (with"
            " MLFLOW_TRACKING_USERNAME), PGPASSWORD or ~/.pgpass, or AWS's files"
        )
    return uri


Uri = Annotated[str, AfterValidator(refuse_password)]


def refuse_in_command(
    context: click.Context, parameter: click.Parameter, value: str | Sequence[str] | None
) -> str | Sequence[str] | None:
    """Callback of click: return the value of an option or of overrides unchanged.

    A value that comes from the environment is private, and may have a password.

    Raises:
        UserError: the value was given on the command line and has a password.
    """
    assert parameter.name
    if context.get_parameter_source(parameter.name) == ParameterSource.COMMANDLINE:
        for text in [value] if isinstance(value, str) else value or ():
            try:
                refuse_password(text)
            except UserError as error:
                is_override = isinstance(parameter, click.Argument)
                name = text.partition("=")[0] if is_override else parameter.opts[0]
                raise UserError(f"{name}: {error}") from None
    return value
