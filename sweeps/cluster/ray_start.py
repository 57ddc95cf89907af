"""Starting Ray on a thread, so that the driver can prepare its sweep meanwhile."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Set
from pathlib import Path

import psutil
import ray
from ray._private.node import Node
from ray.job_config import JobConfig

from analysis.text.messages import first_line
from sweeps.cluster.code_package import copy_code
from sweeps.cluster.ray_environment import scratch_folder
from sweeps.cluster.ray_processes import (
    daemons,
    descendants,
    kill,
    kill_descendants,
    last_error,
)
from sweeps.cluster.remote_tasks import NAMESPACE, start_worker
from sweeps.process import signals
from sweeps.process.stopping import Stop
from sweeps.resources.cpus import usable_cpus
from trainables.errors import UserError

START_S = 120.0  # how long Ray may take to start, on a very busy machine
POLL_S = 0.05


class RayStart:
    """The start of Ray on this machine, or the connection to a cluster, on a thread of its own.

    Linux kills Ray's processes when the thread that started them ends, so it lasts as long as Ray.
    `sweeps.cluster.ray_environment.prepare_ray` comes before the import of this module.
    """

    def __init__(self, address: str | None = None) -> None:
        """Begin to start Ray.

        Args:
            address: of a cluster; None for Ray on this machine.

        Raises:
            UserError: there is no temporary folder for Ray.
        """
        self.address = address
        self._first_worker: ray.ObjectRef | None = None
        self._folder = contextlib.ExitStack()
        self.scratch = self._folder.enter_context(scratch_folder())
        self._others = descendants()  # processes that are not Ray's
        self._is_ready, self._is_over = threading.Event(), threading.Event()
        self._error: Exception | None = None
        if address is None:
            signals.before_exit(lambda: kill_descendants(self._others))
        threading.Thread(target=self._run, name="ray", daemon=True).start()

    def wait(self, stop: Stop) -> None:
        """Wait until Ray has started; after `START_S` end this process.

        Nothing of Ray may be imported meanwhile: its modules import each other in circles.

        Args:
            stop: of the sweep, which saves what it can at the end of the process.

        Raises:
            UserError: Ray does not start, or there is no cluster at the address.
        """
        if not self._is_ready.wait(START_S):  # Ray itself waits for some of its parts for ever
            reason = f"Ray has not started after {START_S:.0f} s{last_error()}"
            signals.end_process(f"sweeps: {reason}", stop.at_deadline, 1)
        if self._error:
            self.shut_down()
            raise self._error

    def wait_for_worker(self, wait_s: float) -> bool:
        """Wait for the first worker on this machine, and return whether it has started."""
        deadline_s = time.monotonic() + wait_s
        while not ray._private.state.workers():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(POLL_S)
        ray.cancel(self._first_worker)
        return True

    def shut_down(self) -> None:
        """Disconnect; Ray on this machine is ended, with the agents that outlive it for minutes."""
        self._first_worker = None
        _shut_down(self._others)
        self._is_over.set()
        self.remove_folder()

    def remove_folder(self) -> None:
        """Remove the temporary folder."""
        self._folder.close()

    def _run(self) -> None:
        try:
            self._start_with_retry()
            if self.address is None:
                self._first_worker = start_worker.remote()
        except Exception as error:  # `wait` raises it
            self._error = error
        finally:
            self._is_ready.set()
        self._is_over.wait()

    def _start_with_retry(self) -> None:
        """Start Ray, on this machine twice if need be: Ray allows a busy machine 30 s."""
        try:
            _start(self.address, self.scratch)
        except UserError:
            if self.address is not None:
                raise
            _shut_down(self._others)
            _start(None, self.scratch)


def _shut_down(others: Set[psutil.Process]) -> None:
    """Disconnect from Ray, and kill what this process has started, except for `others`.

    An object reference that another thread collects while Ray shuts down would end the process, so
    all garbage is collected before.
    """
    gc.collect()
    gc.disable()
    started = descendants() - others
    for _, process in daemons():
        process.terminate = process.kill  # they block SIGTERM, see `sweeps.process.signals`
    try:
        ray.shutdown()
    finally:
        gc.enable()
        kill(started)


def _start(address: str | None, scratch: Path) -> None:
    options = _local_options(scratch) if address is None else _cluster_options(scratch)
    try:
        with _few_processes():
            ray.init(
                address=address or "local",
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
    except Exception as error:  # Ray raises any kind, Exception itself where a node is slow
        if address is None:
            raise UserError(
                f"Ray does not start on this machine: {first_line(error)} If the machine is busy,"
                " run the same command again when it is less so"
            ) from None
        raise UserError(
            f"no Ray cluster answers at {address}, or it wants a token (RAY_AUTH_MODE=token"
            f" and RAY_AUTH_TOKEN_PATH): {first_line(error)}"
        ) from None


class _SmallNode(Node):  # type: ignore[misc]
    """Ray on one machine for one sweep: without the autoscaler, the dashboard and the log monitor.

    They would use as much processor time to start as all the rest of Ray, and nobody reads what
    they write. Ray has no options for this.
    """

    def start_monitor(self) -> None:
        """Start no autoscaler."""

    def start_api_server(self, **options: object) -> None:
        """Start no dashboard."""
        self._webui_url = None

    def start_log_monitor(self) -> None:
        """Start no log monitor: with `log_to_driver=False` nobody reads it."""


@contextlib.contextmanager
def _few_processes() -> Iterator[None]:
    """Context manager: let `ray.init` start a `_SmallNode`, if it starts one."""
    ray._private.node.Node = _SmallNode
    try:
        yield
    finally:
        ray._private.node.Node = Node


def _local_options(scratch: Path) -> dict[str, object]:
    # Unless Ray takes this for the job of a client, the driver's working directory comes before
    # all libraries in its workers.
    options: dict[str, object] = {"job_config": JobConfig(_client_job=True)}
    options |= {"_temp_dir": str(scratch), "include_dashboard": False, "num_cpus": usable_cpus()}
    if (python := shlex.quote(sys.executable)) != sys.executable:  # Ray pastes it into a shell
        options["runtime_env"] = {"py_executable": python}
    return options


def _cluster_options(scratch: Path) -> dict[str, object]:
    if _is_packed():
        return {}
    code = scratch / "code"
    code.mkdir()
    copy_code(code)
    return {"runtime_env": {"working_dir": str(code)}}


def _is_packed() -> bool:
    """Return whether this process is a Ray job, so that its workers have the code already."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return "working_dir" in job.get("runtime_env", {})
