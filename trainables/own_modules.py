"""Import of users' own modules from the working directory."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _WorkingDirectory(MetaPathFinder):
    """Finds a module in the working directory if Python finds it nowhere else.

    If that directory were on `sys.path`, a `queue.py` or a folder `analysis` in it would hide the
    libraries or packages of that name.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # in a package, which has its own path
            return None
        try:
            return PathFinder.find_spec(fullname, [os.getcwd()])
        except OSError:  # the directory was removed
            return None


_finder = _WorkingDirectory()


def import_own(name: str) -> ModuleType:
    """Import a module that is installed or lies in the working directory, by its dotted name.

    Its own imports may lie in the working directory too, now and later.

    Raises:
        ImportError: it is in neither place.
        Exception: any that the module itself raises.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@contextmanager
def silenced() -> Iterator[None]:
    """Context manager: discard what the user's own model prints while it is checked or timed."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield
