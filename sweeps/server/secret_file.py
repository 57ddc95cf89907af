"""Secrets come from files that the environment names, never from command lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainables.errors import UserError
from trainables.files import read_regular_file

MOST_BYTES = 1 << 16


def read_secret(environment: Mapping[str, str], variable: str, least: int) -> str | None:
    """Return the secret in the file that an environment variable names; None if it is not set.

    Args:
        environment: the variables.
        variable: the name of the one to read.
        least: the number of characters that a secret must have.

    Raises:
        UserError: the file cannot be read, is open to every user, or has no valid secret. The
            message has the path and nothing of the content.
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
