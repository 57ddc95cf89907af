"""The MLflow UI of a store, served on this machine for as long as a `with` block lasts."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from analysis.trials.sqlite_store import plain_uri
from sweeps.process import signals
from sweeps.server.mlflow_server import LOOPBACK, analyze, own_environment, server_command
from trainables.files import keep_private

START_LIMIT_S = 120.0  # it takes 5 to 15 s
STOP_LIMIT_S = 10.0  # it takes 1 to 2 s
LOG_TAIL_LINES = 12


class UiError(ValueError):
    """The UI cannot be served; the message says why."""


@contextmanager
def mlflow_ui(tracking_uri: str, *, log_file: Path, port: int | None = None) -> Iterator[str]:
    """Serve the MLflow UI of a store; yield its base URL, such as `http://127.0.0.1:5000`.

    When the block ends, the server and the processes that it started have ended. They are in a
    separate process group: Ctrl-C in a terminal reaches the caller, not the server.

    Args:
        tracking_uri: a database (`sqlite:///...`, `postgresql+psycopg://...`). An `http` URI needs
            no server: it has a UI already.
        log_file: for the server's output; it is overwritten, its folder is created.
        port: on loopback; None takes a free one.

    Raises:
        UiError: the port is not available, or the server ended or did not answer at its start.
    """
    port = _available_port(port)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    analyze(tracking_uri)
    keep_private(log_file)  # it may contain settings of the server
    with log_file.open("wb") as log, signals.unblocked():
        server = subprocess.Popen(
            server_command(LOOPBACK, port),
            env=own_environment(plain_uri(tracking_uri), os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    signals.before_exit(server.terminate)  # it ends what it started
    try:
        _wait_until_healthy(server, port, log_file)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        _end_group(server)


def _available_port(port: int | None) -> int:
    try:
        with socket.create_server((LOOPBACK, port or 0)) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise UiError(
            f"the MLflow UI cannot listen on {LOOPBACK}:{port} ({reason}); take another port"
        ) from error


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while not is_healthy(port):
        if server.poll() is not None:
            raise UiError(f"the MLflow server ended at its start.{_log_tail(log_file)}")
        if time.monotonic() > deadline_s:
            raise UiError(
                f"the MLflow server gave no answer in {START_LIMIT_S:g} s.{_log_tail(log_file)}"
            )
        time.sleep(0.1)


def is_healthy(port: int) -> bool:
    """Return whether an MLflow server answers at a port of loopback."""
    # Unlike urllib, this uses no proxy.
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _log_tail(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n  ".join([f" {log_file} ends with:", *lines[-LOG_TAIL_LINES:]])


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server's process group by SIGTERM, then by SIGKILL."""
    try:
        _signal_group(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_LIMIT_S)
    finally:  # also if a second Ctrl-C interrupts the wait
        _signal_group(server.pid, signal.SIGKILL)
        server.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(
        ProcessLookupError, PermissionError
    ):  # it has ended; macOS then raises the latter
        os.killpg(group, number)
