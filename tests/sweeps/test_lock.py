"""What a sweep needs before it starts: no other driver, and room on the disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.records.lock import only_driver
from sweeps.records.state import check_disk
from trainables.errors import UserError

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from pathlib import Path
from sweeps.records.lock import only_driver

with only_driver(Path(sys.argv[1]), "study"):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweeps" / "study"


@contextmanager
def driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the sweep; it ends when its input does."""
    command = [sys.executable, "-c", DRIVER, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process


def holder(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "lock.json").read_text())
    return found


def test_a_sweep_is_held_by_one_process(folder: Path) -> None:
    with driver(folder) as other:
        content = holder(folder)
        time.strptime(content["since"], "%Y-%m-%d %H:%M:%S %z")
        assert (content["pid"], content["host"]) == (other.pid, socket.gethostname())
        with pytest.raises(UserError) as refused, only_driver(folder, "study"):
            pass
        assert str(refused.value) == (
            f"sweep 'study' is held by process {other.pid} on {socket.gethostname()} since"
            f" {content['since']}; wait until it ends, or stop it with Ctrl-C there"
        )
        assert holder(folder) == content
    with only_driver(folder, "study"):
        assert holder(folder)["pid"] == os.getpid()


def test_the_lock_of_a_process_that_was_killed_is_taken_over(folder: Path) -> None:
    with driver(folder) as other:
        other.kill()
        other.wait()
        assert holder(folder)["pid"] == other.pid
        with only_driver(folder, "study"):
            assert holder(folder)["pid"] == os.getpid()


def test_a_process_that_was_refused_leaves_the_lock_alone(folder: Path) -> None:
    with only_driver(folder, "study"):
        for _ in range(2):
            with pytest.raises(UserError, match=f"process {os.getpid()} "):
                only_driver(folder, "study").__enter__()


def test_sweeps_do_not_wait_for_each_other(folder: Path) -> None:
    with only_driver(folder, "study"), only_driver(folder.with_name("another"), "another"):
        assert holder(folder) == holder(folder.with_name("another"))


def test_a_driver_that_fails_lets_go(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), only_driver(folder, "study"):
        raise KeyboardInterrupt
    with only_driver(folder, "study"):
        pass


garbage = pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\0",
        b'{"pid": 1}',
        b'{"pid": 1, "host": "h", "since": "s"}' * 9,
    ],
)


@garbage
def test_what_lies_in_the_file_does_not_lock(content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "lock.json").write_bytes(content)
    with only_driver(folder, "study"):
        assert holder(folder)["pid"] == os.getpid()


@garbage
def test_a_holder_that_cannot_be_read_is_another_process(content: bytes, folder: Path) -> None:
    with only_driver(folder, "study"):
        (folder / "lock.json").write_bytes(content)
        with pytest.raises(UserError, match="'study' is held by another process; wait"):
            only_driver(folder, "study").__enter__()


def test_a_file_system_without_locks_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UserError, match=r"lock\.json cannot be locked \(No locks.*--state"):
        only_driver(folder, "study").__enter__()


def test_a_sweep_that_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {tmp_path: 3 * 2**20}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    check_disk(tmp_path, 3 * 2**20)
    with pytest.raises(UserError, match=rf"about 2,000 MiB below {tmp_path}, where 3 MiB are free"):
        check_disk(tmp_path, 2_000 * 2**20)
    with pytest.raises(UserError, match="--state"):
        check_disk(tmp_path, 3 * 2**20 + 1)


def test_who_asks_whether_a_sweep_runs_does_not_keep_it_from_starting(folder: Path) -> None:
    folder.mkdir(parents=True)
    with (folder / "lock.json").open("ab") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN)).start()
        with only_driver(folder, "study"):
            assert holder(folder)["pid"] == os.getpid()
