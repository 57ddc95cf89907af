"""Files that are whole or not there, and files that cannot be trusted."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from pathlib import Path

PIECE_BYTES = 1 << 16


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """Read a file that a user named, without trusting that it is one.

    A device or a pipe, which would never end, is not even opened. What gives more than its size
    says, as some files of ``/proc`` do, is read up to the limit.

    Args:
        path: what the user named.
        most_bytes: a larger file is refused, so the memory that this takes is bounded.

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
    """All that an open file has, in one read where its size is true."""
    content = b""
    while size <= most_bytes and (piece := os.read(descriptor, size + PIECE_BYTES)):
        content += piece
        size = len(content)
    if size > most_bytes:
        most = f"{most_bytes >> 20:,} MiB" if most_bytes >= 1 << 20 else f"{most_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"It has more than {most}")
    return content


def expand_home(path: str | Path) -> Path:
    """A path with ``~`` or ``~user`` at its start replaced by that home.

    Raises:
        OSError: there is no such user, or nobody knows the home of this one.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = Path(path).parts[0]
        raise OSError(errno.ENOENT, f"The home directory {home} is not known") from None


def directory_at(path: str | Path) -> Path:
    """The absolute path of a directory that a user named, which need not exist.

    Raises:
        OSError: nothing can be kept there; ``strerror`` has the reason.
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
    """Whether a path can be shown, stored and sent; on Linux it can be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


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
    path.touch(0o600)
    with contextlib.suppress(PermissionError):  # of another owner
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
