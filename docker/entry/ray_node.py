"""Starts a machine of the Ray cluster, as the containers do: ``ray_node.py head|worker``.

Settings are environment variables:

    RAY_AUTH_TOKEN_PATH   a file with the token of the cluster, for its owner's eyes only; needed
    SWEEPS_HOST           where this machine listens; 127.0.0.1 by default; `auto`: where its own
                          host name leads to
    RAY_HEAD              host:port of the head, for a worker
    RAY_PORT, RAY_DASHBOARD_PORT, RAY_METRICS_PORT       6379, 8265 and any free one by default
    RAY_NUM_CPUS, RAY_NUM_GPUS, RAY_OBJECT_STORE_BYTES   what Ray finds by default
    RAY_TEMP_DIR          Ray's own files; /tmp/ray by default
    SWEEPS_DRAIN_S        how long a worker waits for its trials to save themselves; 30 by default
    MLFLOW_TRACKING_PASSWORD_FILE   for the drivers, which run on the head

A worker that gets SIGTERM, such as the notice that a spot instance goes, lets its trials save
themselves and go on elsewhere, before it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

HEAD_WAIT_S = 120.0
NOTICE = "DRAIN_NODE_REASON_PREEMPTION"


def main() -> int:
    """Run Ray until it ends, or is told to."""
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role not in ("head", "worker"):
        refuse("say what this machine is: ray_node.py head, or ray_node.py worker")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(private_file("RAY_AUTH_TOKEN_PATH")),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    host = socket.gethostname() if setting("SWEEPS_HOST") == "auto" else setting("SWEEPS_HOST")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        *("--disable-usage-stats", "--node-ip-address", address_of(host or "127.0.0.1")),
        *options(
            {
                "--num-cpus": "RAY_NUM_CPUS",
                "--num-gpus": "RAY_NUM_GPUS",
                "--object-store-memory": "RAY_OBJECT_STORE_BYTES",
                "--metrics-export-port": "RAY_METRICS_PORT",
            }
        ),
    ]
    if role == "head":
        if "MLFLOW_TRACKING_PASSWORD_FILE" in os.environ:
            secret = private_file("MLFLOW_TRACKING_PASSWORD_FILE").read_text().strip()
            environment["MLFLOW_TRACKING_PASSWORD"] = secret
        command += ["--head", "--port", setting("RAY_PORT") or "6379"]
        command += ["--dashboard-host", address_of(host or "127.0.0.1")]
        command += ["--dashboard-port", setting("RAY_DASHBOARD_PORT") or "8265"]
        command += options({"--temp-dir": "RAY_TEMP_DIR"})
        head = ""
    else:
        head = reachable(setting("RAY_HEAD"))
        command += ["--address", head]
    # In a session of its own: a signal comes to us alone, and we say when Ray is to end.
    ray = subprocess.Popen(command, env=environment, start_new_session=True)

    def on_signal(number: int, frame: object) -> NoReturn:
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        if head:
            drain(head, ray.pid, environment)
        ray.terminate()
        ray.wait()
        sys.exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return ray.wait()


def refuse(why: str) -> NoReturn:
    """End because of a mistake in the settings."""
    print(f"ray_node: {why}", file=sys.stderr)
    sys.exit(2)


def setting(name: str) -> str:
    return os.environ.get(name, "").strip()


def options(names: dict[str, str]) -> list[str]:
    """Of the flags those whose variable is set."""
    return [word for flag, name in names.items() if setting(name) for word in (flag, setting(name))]


def private_file(name: str) -> Path:
    """The file of a secret that a variable names; others may not read it."""
    if not setting(name):
        refuse(f"{name} is not set: it names the file with the secret, see docker/README.md")
    path = Path(setting(name))
    try:
        mode = path.stat().st_mode
        content = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{name}: {path} cannot be read ({error})")
    if stat.S_IMODE(mode) & 0o077:
        refuse(f"{name}: {path} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 600 it")
    if len(content) < 16:
        refuse(f"{name}: the secret in {path} is shorter than 16 characters")
    return path


def address_of(host: str) -> str:
    """The IP address of a host name."""
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        refuse(f"SWEEPS_HOST: {host!r} has no address ({error})")


def reachable(head: str) -> str:
    """Wait until the head listens; its host:port with the host as an IP address."""
    host, _, port = head.rpartition(":")
    if not host or not port.isdigit():
        refuse(f"RAY_HEAD is {head!r}: it names the head as host:port, such as ray-head:6379")
    deadline_s = time.monotonic() + HEAD_WAIT_S
    while True:
        try:
            with socket.create_connection((host, int(port)), 5) as connection:
                return f"{connection.getpeername()[0]}:{port}"
        except OSError as error:
            if time.monotonic() > deadline_s:
                refuse(f"no head answers at {head} after {HEAD_WAIT_S:.0f} s ({error})")
            time.sleep(0.5)


def drain(head: str, pid: int, environment: dict[str, str]) -> None:
    """Let the trials of this machine save themselves; Ray gives it no new ones."""
    deadline_s = time.monotonic() + float(setting("SWEEPS_DRAIN_S") or 30)
    flag = "--node_id="
    words = [word for _, words in descendants(pid) for word in words]
    node = next((word.removeprefix(flag) for word in words if word.startswith(flag)), None)
    if node is None:
        return  # it never joined
    left_s = max(1, round(deadline_s - time.monotonic()))
    notice = [
        *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", head),
        *("--node-id", node, "--reason", NOTICE, "--reason-message", "SIGTERM"),
        *("--deadline-remaining-seconds", str(left_s)),
    ]
    print(f"ray_node: this machine leaves in {left_s} s; its trials save themselves", flush=True)
    if subprocess.run(notice, env=environment, check=False).returncode:
        return
    while time.monotonic() < deadline_s and any(
        words[0].startswith("ray::") and "Trainable" in words[0] for _, words in descendants(pid)
    ):
        time.sleep(0.2)


def descendants(pid: int) -> Iterator[tuple[int, list[str]]]:
    """Process ids and command lines of all that a process started, directly or not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = children.get(pid, [])
    while waiting:
        child = waiting.pop()
        waiting += children.get(child, [])
        try:
            yield child, (Path("/proc") / str(child) / "cmdline").read_text().split("\0")
        except OSError:
            continue


if __name__ == "__main__":
    sys.exit(main())
