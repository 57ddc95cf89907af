"""Files that are whole or not there, and files that cannot be trusted."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path


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


def keep_private(path: Path) -> None:
    """Close a file to all but its owner, and make it if need be; sqlite's journals follow it."""
    with contextlib.suppress(OSError):  # of another owner; a full disk shows when it is written
        path.touch(0o600)
        path.chmod(0o600)


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
