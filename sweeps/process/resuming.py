"""The command that continues a sweep."""

from __future__ import annotations

import os
import shlex
import sys

AGAIN = "SWEEPS_AGAIN"  # the command that continues the sweep, if it is not this process's own


def resume_command() -> str:
    """Return the command that continues the sweep of this process, to be pasted into a shell."""
    return os.environ.get(AGAIN) or shlex.join(["sweeps", *sys.argv[1:]])
