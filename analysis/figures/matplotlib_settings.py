"""matplotlib with its own defaults, whatever the environment or a notebook sets."""

from __future__ import annotations

import contextlib
import os


def load_matplotlib() -> None:
    """Import matplotlib for a command that draws into files.

    Neither MPLBACKEND, which a notebook sets to what is not installed here, nor a settings file is
    read, least of all one that lies in the working directory.
    """
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    with contextlib.ExitStack() as elsewhere:
        with contextlib.suppress(OSError):  # the working directory was deleted
            elsewhere.enter_context(contextlib.chdir("/"))
        import matplotlib  # noqa: F401
