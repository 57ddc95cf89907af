"""Files that are whole or not there, files that cannot be trusted, and temporary folders."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path

SCRATCH = "sweeps-"  # how the names of our temporary folders begin
FRESH_S = 60.0  # a temporary folder that is younger may not have its lock yet


def write_atomically(path: Path, content: bytes, keep_as: Path | None = None) -> None:
    """Replace a file by new content, on the disk before it gets its name.

    Args:
        path: the file; its folder is made.
        content: all of it.
        keep_as: a name for the file that is replaced; None drops it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            path.replace(keep_as)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def partial_of(path: Path) -> Path:
    """What a file is called until it is whole; `remove_partials` knows it by that."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def remove_partials(folder: Path) -> None:
    """Remove what a process that died did not finish to write."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, for people to look at; nothing reads it again.

    Returns:
        Its new path, which ends with ``.unusable-1`` or a higher number.
    """
    names = (path.with_name(f"{path.name}.unusable-{number}") for number in itertools.count(1))
    target = next(name for name in names if not name.exists())
    return path.rename(target)


def trial_folder(root: Path, key: str) -> Path:
    """Where a trial keeps its checkpoint and what it leaves behind."""
    return root / "trials" / key


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
