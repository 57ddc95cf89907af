"""Temporary folders that a killed process leaves behind for the next one to remove."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

SCRATCH = "sweeps-"  # how the names of our temporary folders begin
FRESH_S = 60.0  # a temporary folder that is younger may not have its lock yet


class ScratchFolder:
    """A private temporary folder; one that a killed process left behind goes when the next is made.

    A process holds a lock on each folder of its own, which the operating system drops when it ends.
    """

    def __init__(self, base: Path | None = None) -> None:
        """Make the folder.

        Args:
            base: where; None takes what `tempfile` takes (TMPDIR, else /tmp).

        Raises:
            OSError: no folder can be made there.
        """
        base = base or Path(tempfile.gettempdir())
        _remove_abandoned(base)
        self.path = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=base))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove the folder and all that is in it; doing so twice is no error."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):  # of another user, locked, gone, or no folder
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(lock).st_mtime > FRESH_S:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
