"""Secrets come from files that the environment names, never from command lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainables.errors import UserError
from trainables.files import read_regular_file

MOST_BYTES = 1 << 16


def read_secret(environment: Mapping[str, str], variable: str, least: int) -> str | None:
    """The line in the file that a variable names; None if it names none.

    Args:
        environment: has the variable.
        variable: its name, for messages too.
        least: how many characters a secret has to have.

    Raises:
        UserError: the file cannot be read, is open to every user, or is no secret. The message has
            its path and nothing of its content.
    """
    path = environment.get(variable)
    if not path:
        return None
    try:
        mode = Path(path).stat().st_mode
        text = read_regular_file(Path(path), MOST_BYTES).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{variable}={path} cannot be read: {reason}") from None
    if mode & 0o007:
        raise UserError(f"{variable}={path} is open to every user; chmod 600 {path}")
    if len(text) < least or not text.isprintable():
        raise UserError(
            f"{variable}={path} must hold one line of at least {least} printable characters;"
            f" openssl rand -hex 32 > {path} makes one"
        )
    return text
