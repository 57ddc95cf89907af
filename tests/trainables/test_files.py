"""Files that users name may be anything; what is read of them is bounded, and at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from trainables.files import read_regular_file

MOST_BYTES = 1 << 20


def reason(path: str | Path) -> str:
    with pytest.raises(OSError, match=r".") as refused:
        read_regular_file(Path(path), MOST_BYTES)
    assert refused.value.strerror
    return refused.value.strerror


@pytest.mark.parametrize("size", [0, 1, 70_000, MOST_BYTES])
def test_a_file_is_read_to_its_last_byte(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert read_regular_file(tmp_path / "file", MOST_BYTES) == content


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular_file(tmp_path / "link", MOST_BYTES) == b"content"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_device_is_not_read(device: str) -> None:
    assert reason(device).startswith("Not a regular file")


def test_a_pipe_and_a_socket_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe").startswith("Not a regular file")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert reason(tmp_path / "socket").startswith("Not a regular file")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert reason(tmp_path / "sparse") == "It has more than 1 MiB"


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="no /proc")
def test_a_file_whose_size_is_not_true_is_read_up_to_the_limit() -> None:
    assert b"MemTotal" in read_regular_file(Path("/proc/meminfo"), MOST_BYTES)
    assert reason("/proc/self/pagemap") == "It has more than 1 MiB"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("file/below", "Not a directory"),
        ("dangling", "No such file or directory"),
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("nul\0", "No file can have this name"),
        ("\ud800", "No file can have this name"),
    ],
)
def test_what_cannot_be_read_has_a_reason(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert reason(tmp_path / name) == expected
