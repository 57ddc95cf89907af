"""The command and the environment of an MLflow server, for the local UI and for a container.

By default `mlflow server` has 15 processes and uses 3 GB. Here it has one worker and no job
runners: two processes (the `mlflow` command and its uvicorn) and 0.5 GB. It answers only to the
given host names, so that no page of another site can read it through a name that leads here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sqlite3
import sys
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
LOCAL_NAMES = (LOOPBACK, "localhost")
LOCK_S = 5.0
KEPT = tuple(
    f"MLFLOW_{name}"
    for name in (
        *("ARTIFACT_UPLOAD", "BOTO", "GCS", "KERBEROS", "MULTIPART", "PYARROW", "S3"),
        *("HTTP", "LOGGING_LEVEL", "MYSQL", "SQLALCHEMYSTORE"),
    )
)


def server_command(
    host: str,
    port: int,
    names: Iterable[str] = LOCAL_NAMES,
    artifacts: str | None = None,
    *,
    asks_for_password: bool = False,
) -> list[str]:
    """Return the command line of the server. It has no secrets: `ps` shows it to everyone.

    Args:
        host: the address to listen on.
        port: the port to listen on.
        names: the host names that clients use, as NAME or NAME:PORT if a proxy has another port.
        artifacts: a folder or URI for the artifacts that clients send to the server; None leaves
            it to MLflow.
        asks_for_password: require a login, as the environment configures it
            (MLFLOW_AUTH_CONFIG_PATH).
    """
    allowed = (each for name in names for each in _forms(name, port))
    options = {
        "--host": host,
        "--port": str(port),
        "--workers": "1",
        "--allowed-hosts": ",".join(dict.fromkeys(allowed)),
        "--uvicorn-opts": f"--loop {__name__}:{event_loop.__name__}",
    }
    if artifacts is not None:
        options["--artifacts-destination"] = artifacts
    if asks_for_password:
        options["--app-name"] = "basic-auth"
    flags = [text for option in options.items() for text in option]
    return [sys.executable, "-m", "mlflow", "server", "--serve-artifacts", *flags]


def own_environment(store_uri: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server that serves the caller alone.

    It keeps those of the caller's MLflow settings that give access to databases and artifacts. The
    others could change what the server is: it would read a replica, add a prefix to each path,
    require a workspace, or answer to any site.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_")) or name.startswith(KEPT)
    }
    return kept | server_environment(store_uri)


def server_environment(store_uri: str) -> dict[str, str]:
    """Return the variables that every server needs."""
    return {
        "MLFLOW_BACKEND_STORE_URI": store_uri,  # not a flag: `ps` would show a password in it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONSAFEPATH": "1",  # a folder `mlflow` in the working directory is not imported
        "PYTHONUNBUFFERED": "1",  # the log is whole when the server ends early
    }


def analyze(store_uri: str) -> None:
    """Update the statistics of sqlite, without which it takes seconds to order thousands of runs.

    Other databases do this by themselves. A file that is locked or damaged is skipped: the server
    reports that.
    """
    from analysis.trials.sqlite_store import store_file

    path = store_file(store_uri)
    if path is None or not os.path.isfile(path):
        return
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(path, timeout=LOCK_S)) as database,
    ):
        database.execute("ANALYZE")


def event_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of the worker, and let Python collect garbage less often.

    MLflow creates dozens of long-lived objects for each run that it reads. With fewer collections,
    reading thousands of runs takes half the time.
    """
    gc.set_threshold(50_000, 20, 50)
    return asyncio.new_event_loop()


def _forms(name: str, port: int) -> list[str]:
    """Return the forms of a host in requests: clients omit the default port of the protocol."""
    has_port = ":" in name.rpartition("]")[2]  # an IPv6 address is in brackets
    return [name] if has_port else [name, f"{name}:{port}"]
