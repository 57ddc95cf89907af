"""Locks that let one driver at a time run a sweep, and one process at a time use a folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trainables.errors import UserError

AGAIN_S = 0.2  # pause before the second try


@contextlib.contextmanager
def only_driver(folder: Path, sweep: str) -> Iterator[None]:
    """Context manager: lock a sweep, so that no other driver runs it.

    Args:
        folder: of the sweep, for the file `lock.json`.
        sweep: its name.

    Raises:
        UserError: another process holds the lock, or the file system cannot lock.
    """
    remedy = "wait until it ends, or stop it with Ctrl-C there"
    with locked_file(folder / "lock.json", f"sweep {sweep!r}", remedy):
        yield


def locked_file(path: Path, what: str, remedy: str) -> IO[bytes]:
    """Return a file that is open and locked; closing it unlocks it.

    The operating system locks it, and unlocks it when its holder dies, on NFS as well. What is
    written in the file only says who holds it.

    Args:
        path: of the file, which is made with its folder if need be.
        what: is held by whoever holds the lock; for the message.
        remedy: for the message, if another process holds it.

    Raises:
        UserError: another process holds the lock, or the file system cannot lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    try:
        _lock(file)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            raise UserError(f"{what} is held by {_holder(path)}; {remedy}") from None
        raise UserError(
            f"{path} cannot be locked ({error.strerror}); choose a state directory on another file"
            " system with --state or SWEEPS_STATE"
        ) from None
    holder = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    with contextlib.suppress(OSError):  # a full disk, say: the lock itself holds
        file.truncate(0)
        file.write((json.dumps(holder) + "\n").encode())
    return file


def _lock(file: IO[bytes]) -> None:
    """Lock a file. Try twice: asking whether a sweep runs locks it for an instant."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    time.sleep(AGAIN_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    return "another process"
