"""What the start script of a Ray machine refuses and starts; `test_cluster.py` uses clusters."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.hosts import free_port
from tests.docker.machines import ENTRY, Cluster, ray_cluster
from tests.docker.running import secret_file
from tests.processes import descendants
from trainables.persistence.scratch import FRESH_S, SCRATCH

# A node that has ended: what the script does before it becomes `ray start`.
OVER = """
import os, sys
from sweeps.cluster.ray_environment import make_ray_scratch
scratch = make_ray_scratch(sys.argv[1])
scratch.keep_over_exec()
os.execvp("echo", ["echo", str(scratch.path)])
"""


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


@pytest.mark.parametrize(
    ("base", "said"),
    [("/proc", "RAY_TEMP_DIR"), ("/tmp/" + "long" * 20, "at most 25 characters")],
)
def test_a_place_where_sockets_cannot_be_is_refused(tmp_path: Path, base: str, said: str) -> None:
    settings = {"RAY_AUTH_TOKEN_PATH": secret_file(tmp_path, "token"), "RAY_TEMP_DIR": base}
    done = run(tmp_path, "head", **settings)
    assert done.returncode == 2
    assert "Ray needs a temporary folder that is writable" in done.stderr
    assert said in done.stderr


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("head"), [(1, 0)]) as cluster:
        yield cluster


def test_other_users_can_read_none_of_rays_files(head: Cluster) -> None:
    if os.getuid() != 0:
        pytest.skip("to be another user needs root")
    (machine,) = head.machines
    (private,) = machine.files.glob(f"{SCRATCH}*")
    assert list(private.glob("r/session_2*/sockets/raylet"))
    find = ["find", str(machine.files)]
    seen = subprocess.run(find, user="nobody", capture_output=True, text=True)
    assert seen.stdout.splitlines() == [str(machine.files), str(private)]
    assert "Permission denied" in seen.stderr


def test_the_port_of_ray_client_is_closed(head: Cluster) -> None:
    (machine,) = head.machines
    started = [title for _, title in descendants(machine.process.pid)]
    assert any("gcs_server" in title for title in started)
    assert not any("ray.util.client" in title for title in started)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((head.head_host.address, 10001), 5)


def test_a_second_head_with_the_same_state_is_refused(head: Cluster, tmp_path: Path) -> None:
    state = head.folder / "state"
    (machine,) = head.machines
    settings = {"RAY_AUTH_TOKEN_PATH": str(head.token), "SWEEPS_STATE": str(state)}
    done = run(tmp_path, "head", **settings)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"ray_node: the state directory {state}, which belongs to one head, is held by process"
        f" {machine.process.pid} on {socket.gethostname()} since"
    )
    assert line.endswith("stop that head, or give this one another directory by SWEEPS_STATE")


def test_the_files_of_a_node_that_is_over_go_with_the_next(head: Cluster, tmp_path: Path) -> None:
    (machine,) = head.machines
    (private,) = machine.files.glob(f"{SCRATCH}*")
    over = subprocess.run(
        [sys.executable, "-c", OVER, str(machine.files)], capture_output=True, text=True, check=True
    ).stdout.strip()
    old_s = time.time() - 2 * FRESH_S
    for folder in (over, private):
        os.utime(folder, (old_s, old_s))
    settings = {"RAY_AUTH_TOKEN_PATH": str(head.token), "RAY_TEMP_DIR": str(machine.files)}
    done = run(tmp_path, "worker", RAY_HEAD="127.0.0.1:x", **settings)
    assert done.returncode == 2
    assert Path(over).exists()  # one that is refused touches nothing
    done = subprocess.run([sys.executable, "-c", OVER, str(machine.files)], check=True)
    assert not Path(over).exists()
    assert private.exists()  # of the head, which lives
