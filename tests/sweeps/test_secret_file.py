"""Files of secrets: what is read, and that nothing of a file is said that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.server.secret_file import read_secret
from trainables.errors import UserError


def secret(path: str | Path) -> str | None:
    return read_secret({"TOKEN_FILE": str(path)}, "TOKEN_FILE", least=4)


def test_a_line_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes("geheim: größe\r\n".encode())
    file.chmod(0o600)
    (tmp_path / "link").symlink_to("token")
    assert secret(file) == secret(tmp_path / "link") == "geheim: größe"
    assert read_secret({}, "TOKEN_FILE", least=4) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("pipe", "Not a regular file"),
        ("/dev/zero", "Not a regular file"),
        ("large", "more than 64 KiB"),
        ("binary", "it is no text"),
    ],
)
def test_what_is_no_file_of_a_secret_is_refused_at_once(
    name: str, reason: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"secret" * 100_000)
    (tmp_path / "binary").write_bytes(b"secret\xff")
    with pytest.raises(UserError) as refused:
        secret(tmp_path / name)
    message = str(refused.value)
    assert message.startswith(f"TOKEN_FILE={tmp_path / name} cannot be read: ")
    assert reason in message
    assert "secret" not in message.replace(str(tmp_path), "")
