"""Connecting to a Ray cluster, or starting Ray on this machine for one sweep."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Set
from pathlib import Path

import psutil
import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE

from analysis.text.messages import first_line
from sweeps.cluster.code_package import copy_code
from sweeps.cluster.machines import machines
from sweeps.cluster.ray_processes import daemons, descendants, kill, last_error, watched
from sweeps.cluster.remote_tasks import NAMESPACE, ping
from sweeps.process import signals
from sweeps.process.stopping import Stop
from sweeps.resources.nodes import Node, local_node
from trainables.errors import UserError

WORKER_S = 120.0  # how long the first worker may take, on a very busy machine


@contextlib.contextmanager
def connected(address: str | None, stop: Stop, scratch: Path) -> Iterator[list[Node]]:
    """Context manager: connect to a Ray cluster, or run Ray on this machine.

    `sweeps.cluster.ray_environment.prepare_ray` comes before the import of this module.

    Args:
        address: of the cluster; None for Ray on this machine, which ends with this.
        stop: is interrupted if the cluster is lost.
        scratch: a folder in which Ray on this machine keeps its sockets and logs.

    Yields:
        The machines of the cluster.

    Raises:
        UserError: there is no cluster at the address, it wants a token, or Ray or its first worker
            does not start.
    """
    others = descendants()
    if address is None:
        signals.before_exit(lambda: kill(descendants() - others))
    _start_with_retry(address, stop, scratch, others)
    try:
        with watched(address, stop):
            if address is None:  # on a cluster `check_storage` asks each machine
                check_workers()
            yield list(machines().values())
    except KeyboardInterrupt:
        raise  # from within Ray, which ends with this process, see `sweeps.cli.main`
    except BaseException:
        _shutdown(others)
        raise
    else:
        _shutdown(others)


def _start_with_retry(
    address: str | None, stop: Stop, scratch: Path, others: Set[psutil.Process]
) -> None:
    """Start Ray, on this machine twice if need be: Ray allows a busy machine 30 s."""
    try:
        with _limited(stop):
            _start(address, scratch)
    except UserError:
        if address is not None:
            raise
        _shutdown(others)
        with _limited(stop):
            _start(address, scratch)


def _start(address: str | None, scratch: Path) -> None:
    try:
        ray.init(
            address=address or "local",
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(_local_options(scratch) if address is None else _cluster_options(scratch)),
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


def _local_options(scratch: Path) -> dict[str, object]:
    # Unless Ray takes this for the job of a client, the driver's working directory comes before
    # all libraries in its workers.
    options: dict[str, object] = {"job_config": JobConfig(_client_job=True)}
    options |= {"_temp_dir": str(scratch), "include_dashboard": False}
    options |= {"num_cpus": int(local_node().cpus)}
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


def _shutdown(others: Set[psutil.Process]) -> None:
    """Disconnect; Ray on this machine is ended, with the agents that outlive it for minutes.

    An object reference that another thread collects while Ray shuts down would end the process, so
    all garbage is collected before.

    Args:
        others: processes that this one started and that are not Ray's.
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


@contextlib.contextmanager
def _limited(stop: Stop) -> Iterator[None]:
    """Context manager: end this process if Ray does not start within `WORKER_S`.

    Ray itself waits for its first workers for ever.
    """

    def end() -> None:
        reason = f"Ray has not started after {WORKER_S:.0f} s{last_error()}"
        signals.end_process(f"sweeps: {reason}", stop.at_deadline, 1)

    timer = threading.Timer(WORKER_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_workers() -> None:
    """Check that a worker can start: if none can, trials would wait for ever.

    Raises:
        UserError: no worker has answered after `WORKER_S`.
    """
    passed_on = {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE & os.environ.keys()}
    # The environment of Tune's actors: one of them gets this worker next.
    reply = ping.options(runtime_env={"env_vars": DEFAULT_ENV_VARS | passed_on}).remote()
    ready, _ = ray.wait([reply], timeout=WORKER_S)
    try:
        if ready:
            ray.get(ready)
            return
        reason = f"no worker of Ray answered within {WORKER_S:.0f} s"
    except RayError as error:
        reason = f"the first worker of Ray died: {first_line(error)}"
    raise UserError(f"{reason}{last_error()}")
