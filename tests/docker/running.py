"""The servers of the service as processes on loopback: for the tests that use them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweeps.server.ui import is_healthy
from tests.docker.hosts import Host, free_port

ROOT = Path(__file__).parents[2]
MLFLOW_ENTRY = ROOT / "docker" / "entry" / "mlflow_server.py"
LOOPBACK = "127.0.0.1"
LOCAL = Host(LOOPBACK)
HEALTH = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)"
START_LIMIT_S = 150.0  # it takes 10 s where nothing else runs
STOP_LIMIT_S = 15.0
FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")  # a test may lose it all


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server, and a user that may do everything there."""

    port: int
    password: str
    user: str = "mlflow"

    def uri(self, database: str = "postgres", with_password: bool = False) -> str:
        secret = f":{self.password}" if with_password else ""
        return f"postgresql+psycopg://{self.user}{secret}@{LOOPBACK}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database; return its URI, without the password."""
        self.execute(f"CREATE DATABASE {database}")
        return self.uri(database)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement; return its rows, if it has any."""
        import psycopg

        where = self.uri(database, with_password=True).replace("+psycopg", "")
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def postgres(*, is_safe: bool = False) -> Iterator[Database]:
    """A PostgreSQL server on a free port of loopback, with passwords.

    Args:
        is_safe: whether what is written survives a crash, as it does by default where it counts.
    """
    programs = _postgres_programs()
    as_user = _normal_user()
    database = Database(free_port(), secrets.token_hex(16))
    # Not in pytest's folders: these are closed to the user that PostgreSQL must run as.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        password_file, data = folder / "password", folder / "data"
        password_file.write_text(database.password)
        if "user" in as_user:
            for path in (folder, password_file):
                shutil.chown(path, as_user["user"], as_user["group"])
        subprocess.run(
            [programs / "initdb", "--pgdata", data, "--username", database.user, "--no-sync",
             "--pwfile", password_file, "--auth", "scram-sha-256", "--encoding", "UTF8"],
            cwd=folder, capture_output=True, check=True, timeout=START_LIMIT_S, **as_user,
        )  # fmt: skip
        settings = (
            *(() if is_safe else FAST),
            f"listen_addresses={LOOPBACK}",
            "unix_socket_directories=",
        )
        flags = [flag for setting in settings for flag in ("-c", setting)]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(database.port), *flags],
                cwd=folder,
                stdout=log,
                stderr=log,
                **as_user,
            )
        try:
            ready = [programs / "pg_isready", "-h", LOOPBACK, "-p", str(database.port), "-q"]
            wait_until(lambda: subprocess.run(ready).returncode == 0, server, folder / "log")
            yield database
        finally:
            end(server, signal.SIGINT)  # "fast": it ends connections instead of waiting for them
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def mlflow_server(
    folder: Path, environment: Mapping[str, str], host: Host = LOCAL
) -> Iterator[str]:
    """The MLflow server by the entry script of its container; yields its base URL.

    Args:
        folder: for its log (`mlflow.log`), its temporary files, and its artifacts if need be.
        environment: its settings; by default it listens on a free port of its host.
        host: of a network; by default loopback.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = int(environment.get("MLFLOW_PORT") or host.port(5000))
    url = f"http://{host.address}:{port}"
    log_file = folder / "mlflow.log"
    with log_file.open("ab") as log:
        server = subprocess.Popen(
            [*host.command, sys.executable, str(MLFLOW_ENTRY)],
            cwd=folder,
            env=mlflow_environment(
                folder, {"MLFLOW_HOST": host.address, "MLFLOW_PORT": str(port), **environment}
            ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: _is_healthy(host, port), server, log_file)
        yield url
    finally:
        end(server, signal.SIGTERM)  # what a container is sent


def _is_healthy(host: Host, port: int) -> bool:
    if host is LOCAL:
        return is_healthy(port)
    ask = [*host.command, sys.executable, "-c", HEALTH, f"http://{host.address}:{port}/health"]
    return subprocess.run(ask, capture_output=True).returncode == 0


def mlflow_environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of the entry script, without settings of whoever runs the tests."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PG"))}
    (folder / "tmp").mkdir(exist_ok=True)
    ours = {
        "TMPDIR": str(folder / "tmp"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
    }
    return {**inherited, **ours, **settings}


def secret_file(folder: Path, name: str, secret: str = "", mode: int = 0o600) -> str:
    """A file with a secret, a random one by default; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text((secret or secrets.token_hex(32)) + "\n")
    path.chmod(mode)
    return str(path)


def wait_until(
    condition: Callable[[], bool], server: subprocess.Popen[bytes], log_file: Path
) -> None:
    """Wait for a server that starts; fails if it ends instead."""
    deadline_s = time.monotonic() + START_LIMIT_S
    while not condition():
        assert server.poll() is None, f"it ended at its start:\n{log_file.read_text()}"
        assert time.monotonic() < deadline_s, f"it gave no answer:\n{log_file.read_text()}"
        time.sleep(0.1)


def end(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Ask a server to end; one that does not is killed, and the test fails."""
    server.send_signal(number)
    try:
        server.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        raise


def _postgres_programs() -> Path:
    """The folder of PostgreSQL's programs, the newest; Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if (on_path := shutil.which("pg_isready")) and not found:
        found.append(Path(on_path).resolve())
    missing = [name for name in ("psycopg", "flask_wtf") if importlib.util.find_spec(name) is None]
    if not found:
        missing.append("PostgreSQL")
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return found[-1].parent


def _normal_user() -> dict[str, Any]:
    """Arguments that make a process that of a normal user, for root: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
