"""Temporary folders; those that a killed process leaves are removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

SCRATCH = "sweeps-"  # beginning of their names
TRIES, TRY_AGAIN_S = 5, 0.05
FRESH_S = 60.0  # a younger folder may not be locked yet


class ScratchFolder:
    """A private temporary folder, which its process locks as long as it lives.

    Making one removes those of processes that were killed, whose locks the system has released.
    """

    def __init__(self, base: Path | None = None) -> None:
        """Make the folder.

        Args:
            base: the folder of the new one; None takes that of `tempfile` (TMPDIR, else /tmp).

        Raises:
            OSError: no folder can be made there.
        """
        base = base or Path(tempfile.gettempdir())
        _remove_abandoned(base)
        self.path = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=base))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def keep_over_exec(self) -> None:
        """Let the program that replaces this one by `exec` hold the lock as long as it lives."""
        os.set_inheritable(self._lock, True)

    def remove(self) -> None:
        """Remove the folder with its content; a second call does nothing."""
        for _ in range(TRIES):  # a process that was killed just now may have made a file meanwhile
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                break
            time.sleep(TRY_AGAIN_S)
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
