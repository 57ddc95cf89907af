"""A lock that lets one driver at a time run a sweep."""

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

    The operating system locks a file, and unlocks it when its holder dies. What is written in the
    file only says who holds it.

    Args:
        folder: of the sweep, for the file.
        sweep: its name.

    Raises:
        UserError: another process holds the lock, or the file system cannot lock.
    """
    path = folder / "lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = path.open("ab+", buffering=0)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    with opened as file:
        try:
            _lock(file)
        except BlockingIOError:
            raise UserError(_refusal(file.name, sweep)) from None
        except OSError as error:
            raise UserError(
                f"{file.name} cannot be locked ({error.strerror}); choose a state directory on"
                " another file system with --state"
            ) from None
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        with contextlib.suppress(OSError):  # a full disk, say: the lock itself holds
            file.truncate(0)
            file.write((json.dumps(holder) + "\n").encode())
        yield


def _lock(file: IO[bytes]) -> None:
    """Lock a file. Try twice: asking whether a sweep runs locks it for an instant."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    time.sleep(AGAIN_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _refusal(path: str, sweep: str) -> str:
    owner = "another process"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(Path(path).read_text(encoding="utf-8"))
        owner = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    return f"sweep {sweep!r} is held by {owner}; wait until it ends, or stop it with Ctrl-C there"
