"""The processes of Ray on this machine, and what ends a sweep whose cluster is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
import ray

from sweeps.process.stopping import Stop
from trainables.errors import UserError

CHECK_EVERY_S = 0.5  # how often the cluster is checked
AWAY_S = 30.0  # a GCS that is restarted comes back within this time
VITAL = ("gcs_server", "raylet")  # without these Ray ends the driver
LINE_SHOWN = 300  # characters of a log that are shown


class Daemon(Protocol):
    """A process of Ray that this process started."""

    terminate: Callable[[], None]
    kill: Callable[[], None]

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""


def descendants() -> set[psutil.Process]:
    """Return the processes that this one started, directly or through others."""
    return set(psutil.Process().children(recursive=True))


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL to those that still run."""
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended
            process.kill()  # psutil spares another process that got the same number


def daemons() -> list[tuple[str, Daemon]]:
    """Return the processes of Ray that this process started, with their kinds."""
    node = ray._private.worker._global_node
    return [
        (kind, info.process)
        for kind, started in list((node.all_processes if node else {}).items())
        for info in list(started)
    ]


def last_error() -> str:
    """Return the last line in the error logs of Ray on this machine, as part of a message.

    It is empty if there is none.
    """
    node = ray._private.worker._global_node
    logs = Path(node.get_logs_dir_path()) if node else Path()
    for path in sorted(logs.glob("*.err"), key=lambda path: -path.stat().st_mtime):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
        if last := next(filter(None, reversed(lines)), ""):
            return f"; {path.name} ends with: {last[:LINE_SHOWN]}"
    return ""


@contextlib.contextmanager
def watched(address: str | None, stop: Stop) -> Iterator[None]:
    """Context manager: interrupt the sweep if its cluster is lost, before Ray ends this process.

    A thread checks the processes of Ray on this machine; of a cluster it checks whether the GCS
    answers.

    Args:
        address: of the cluster; None for Ray on this machine.
        stop: is interrupted.
    """
    is_over = threading.Event()
    is_client = (address or "").startswith("ray://")  # only the address of its server is known
    gcs = address if address and is_client else ray.get_runtime_context().gcs_address
    thread = threading.Thread(
        target=_watch, args=(address, gcs, stop, is_over), name="cluster", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        is_over.set()


def _watch(address: str | None, gcs: str, stop: Stop, is_over: threading.Event) -> None:
    away_since_s = None
    while not is_over.wait(CHECK_EVERY_S):
        dead = [kind for kind, process in daemons() if process.poll() is not None]
        if is_over.is_set():  # that is why they are dead
            return
        if lost := next((kind for kind in dead if kind in VITAL), None):
            stop.interrupt("lost", f"Ray's process {lost} died")
            return
        if address is None or _answers(gcs):
            away_since_s = None
        else:
            away_since_s = away_since_s or time.monotonic()
            if time.monotonic() - away_since_s > AWAY_S:
                stop.interrupt("lost", f"the Ray cluster at {gcs} has gone")
                return


def _answers(gcs: str) -> bool:
    from sweeps.resources.nodes import check_address  # imported late: it needs torch

    try:
        check_address(gcs)
    except UserError:
        return False
    return True
