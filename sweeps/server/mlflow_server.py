"""How an MLflow server is started well: for the UI on this machine, and in a container.

`mlflow server` by default is 15 processes and 3 GB; here it has one worker and no job runners: two
processes (the `mlflow` command and its uvicorn) and 0.5 GB. It answers only to the names that it
is given, so that no page of another site reads it through a name of its own.
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
    """The command line of the server. There are no secrets in it: `ps` shows it to everyone.

    Args:
        host: the address to listen on.
        port: likewise.
        names: the hosts that clients ask for, as NAME or NAME:PORT where a proxy has another port.
        artifacts: a folder or URI for the artifacts that clients send to the server; None leaves
            it to MLflow.
        asks_for_password: the environment must then say how (see MLFLOW_AUTH_CONFIG_PATH).
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
    """The environment of a server that serves the caller alone.

    Of the caller's own settings of MLflow it keeps those that reach databases and artifacts. The
    others may make another server of it: one that reads a replica, has a prefix before each path,
    wants a workspace, or answers to any site.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_")) or name.startswith(KEPT)
    }
    return kept | server_environment(store_uri)


def server_environment(store_uri: str) -> dict[str, str]:
    """What the environment of a server has in any case."""
    return {
        "MLFLOW_BACKEND_STORE_URI": store_uri,  # not a flag: `ps` would show a password in it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONSAFEPATH": "1",  # a folder `mlflow` in the working directory is not imported
        "PYTHONUNBUFFERED": "1",  # the log is whole when the server ends early
    }


def analyze(store_uri: str) -> None:
    """Give sqlite the statistics without which it takes seconds to order thousands of runs.

    Other databases see to that by themselves. A file that is locked or damaged is left alone: the
    server will say so.
    """
    from analysis.trials.sqlite_store import (
        store_file,  # late: the server's worker has no use for it
    )

    path = store_file(store_uri)
    if path is None or not os.path.isfile(path):
        return
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(path, timeout=LOCK_S)) as database,
    ):
        database.execute("ANALYZE")


def event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of the worker, where Python looks for cycles of garbage less often.

    MLflow makes dozens of objects for a run that it reads, and they outlive many a search among
    all that there are: reading thousands of runs takes half the time.
    """
    gc.set_threshold(50_000, 20, 50)
    return asyncio.new_event_loop()


def _forms(name: str, port: int) -> list[str]:
    """What a client may call it: it leaves the port out where that is the protocol's own."""
    has_port = ":" in name.rpartition("]")[2]  # an IPv6 address is in brackets
    return [name] if has_port else [name, f"{name}:{port}"]
