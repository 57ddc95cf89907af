"""Atomic writes, and careful reading of files that a user names."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from pathlib import Path

PIECE_BYTES = 1 << 16


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """Read a file that a user named, which may be no regular file.

    A device or a pipe, which may never end, is not opened. A file with more content than its size,
    such as some in ``/proc``, is read up to the limit.

    Args:
        path: named by the user.
        most_bytes: a larger file is refused, to bound the memory.

    Raises:
        OSError: it cannot be read, is no regular file or is too large; ``strerror`` has the reason.
    """
    try:
        about = path.stat()
    except ValueError:  # a NUL, or a character that no name on this system can have
        raise OSError(errno.EINVAL, "No file can have this name") from None
    if stat.S_ISDIR(about.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file but a device, a pipe or a socket")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return _read_up_to(descriptor, about.st_size, most_bytes)
    finally:
        os.close(descriptor)


def _read_up_to(descriptor: int, size: int, most_bytes: int) -> bytes:
    """Return the content of an open file; one read is enough if its size is right."""
    content = b""
    while size <= most_bytes and (piece := os.read(descriptor, size + PIECE_BYTES)):
        content += piece
        size = len(content)
    if size > most_bytes:
        most = f"{most_bytes >> 20:,} MiB" if most_bytes >= 1 << 20 else f"{most_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"It has more than {most}")
    return content


def expand_home(path: str | Path) -> Path:
    """Return a path with ``~`` or ``~user`` at its start replaced by that home.

    Raises:
        OSError: there is no such user, or the home is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise OSError(errno.ENOENT, f"The home directory {home} is not known") from None


def directory_at(path: str | Path) -> Path:
    """Return the absolute path of a directory that a user named, which need not exist.

    Raises:
        OSError: it cannot be a directory, or cannot be read; ``strerror`` has the reason.
    """
    path = expand_home(path)
    if not is_utf8(path):
        raise OSError(errno.EILSEQ, "Its name is not UTF-8")
    try:
        path = path.absolute()
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "The working directory does not exist any more") from None
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "It is a link to what does not exist") from None
        return path
    except ValueError:  # a NUL
        raise OSError(errno.EINVAL, "No file can have this name") from None
    if not is_directory:
        raise OSError(errno.ENOTDIR, "It is not a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return path


def is_utf8(path: str | Path) -> bool:
    """Return whether a path is UTF-8, so that it can be shown and sent; Linux allows any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_atomically(path: Path, content: bytes, keep_as: Path | None = None) -> None:
    """Replace a file by new content, which is on the disk before it gets the file's name.

    Args:
        path: the file; its folder is made.
        content: all of it.
        keep_as: a new name for the file that is replaced; None drops it.

    Raises:
        OSError: it cannot be written; the old file is kept, under its name or ``keep_as``.
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
    """Let only the owner read and write a file, which is made if it is missing.

    The journals of an sqlite file get the same mode.
    """
    with contextlib.suppress(OSError):  # of another owner; a full disk is found by the next write
        path.touch(0o600)
        path.chmod(0o600)


def partial_of(path: Path) -> Path:
    """Return the name of a file while it is written, by which `remove_partials` finds it."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def remove_partials(folder: Path) -> None:
    """Remove files that a process was writing when it died."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, so that only people read it.

    Returns:
        Its new path, which ends with ``.unusable-1`` or a higher number.
    """
    names = (path.with_name(f"{path.name}.unusable-{number}") for number in itertools.count(1))
    target = next(name for name in names if not name.exists())
    return path.rename(target)


def trial_folder(root: Path, key: str) -> Path:
    """Return the folder of a trial's checkpoints and artifacts."""
    return root / "trials" / key
