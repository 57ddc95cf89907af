"""What the start script of a Ray machine refuses, and what it starts; `test_cluster.py` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.machines import ENTRY
from tests.docker.running import free_port, secret_file


def run(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SWEEPS_"))}
    return subprocess.run(
        [sys.executable, str(ENTRY), *arguments],
        cwd=tmp_path,
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ([], {}, "say what this machine is"),
        (["boss"], {}, "say what this machine is"),
        (["head"], {}, "RAY_AUTH_TOKEN_PATH is not set"),
        (["head"], {"RAY_AUTH_TOKEN_PATH": "nowhere"}, "nowhere cannot be read"),
        (["head"], {"RAY_AUTH_TOKEN_PATH": "open"}, "open is open to every user; chmod 600 open"),
        (["head"], {"RAY_AUTH_TOKEN_PATH": "short"}, "at least 32 printable characters"),
        (["worker"], {"RAY_AUTH_TOKEN_PATH": "token"}, "RAY_HEAD=: the head is expected as"),
        (
            ["head"],
            {"RAY_AUTH_TOKEN_PATH": "token", "SWEEPS_HOST": "no.such.host.invalid"},
            "SWEEPS_HOST=no.such.host.invalid has no address",
        ),
    ],
)
def test_it_refuses_to_start(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], said: str
) -> None:
    secret_file(tmp_path, "token")
    secret_file(tmp_path, "open", mode=0o644)
    secret_file(tmp_path, "short", "too-short")
    done = run(tmp_path, *arguments, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("ray_node: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "too-short" not in done.stderr


def test_a_worker_waits_for_its_head_and_then_says_so(tmp_path: Path) -> None:
    head = f"127.0.0.1:{free_port()}"
    settings = {"RAY_AUTH_TOKEN_PATH": secret_file(tmp_path, "token"), "RAY_HEAD_WAIT_S": "1"}
    done = run(tmp_path, "worker", RAY_HEAD=head, **settings)
    assert done.returncode == 2
    assert f"no head answers at RAY_HEAD={head} after 1 s" in done.stderr
