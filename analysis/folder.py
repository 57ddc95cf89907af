"""Folders that users name on the command line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from analysis.errors import AnalysisError


class Folder(click.Path):
    """Parameter type: a folder that need not exist. Impossible paths are refused at once."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Return the path.

        Raises:
            AnalysisError: no folder can be there.
        """
        if problem := _problem(str(value)):
            option = param.opts[0] if param else "folder"
            raise AnalysisError(f"{option} {str(value)!r} cannot be used: {problem}")
        return Path(str(value)).expanduser()


def _problem(name: str) -> str:
    """Return why no folder can have this path; empty if one can."""
    if not name:
        return "it is empty; name a folder"
    try:
        name.encode()
        path = Path(name).expanduser().absolute()
        path.stat()
    except FileNotFoundError as error:
        return "" if error.filename else "the working directory does not exist any more"
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except (ValueError, RuntimeError) as error:  # a NUL; a user without a home
        return str(error)
    if not path.is_dir():
        return "it is not a folder"
    return "" if os.access(path, os.R_OK | os.X_OK) else os.strerror(errno.EACCES)
