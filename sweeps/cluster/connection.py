"""A Ray cluster: joining it, checking its machines, and how much of it a sweep may use."""

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
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from analysis.messages import first_line
from sweeps.cluster.code_package import copy_code
from sweeps.cluster.remote_tasks import Shares, answer, visit
from sweeps.process import signals
from sweeps.process.stopping import Stop
from sweeps.resources.fair_share import ShareRequest
from sweeps.resources.gpus import pack_sizes_here
from sweeps.resources.nodes import Node, check_address, local_node, places
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.errors import UserError
from trainables.persistence.storage import Storage, marked
from trainables.training.gpu_memory import GpuUse, measure
from trainables.training.pack_size import MEASURING_S

logger = logging.getLogger(__name__)

EVERY_S = 2.0  # how often a sweep asks what it may use
ANSWER_S = 10.0
LOOK_S = 0.5  # how often it is looked whether the cluster is there
AWAY_S = 30.0  # a GCS that is restarted comes back within this
VITAL = ("gcs_server", "raylet")  # without these Ray ends the driver
WORKER_S = 120.0  # how long the first worker may take, on a very busy machine
SAID = 300  # characters of a log that are shown
FREE_GPU_S = 60.0  # how long a machine may take to have a GPU free, and to measure on it
NAMESPACE, SHARES = "bigram-sweeps", "shares-1"


@contextlib.contextmanager
def connected(address: str | None, stop: Stop, scratch: Path) -> Iterator[list[Node]]:
    """A Ray cluster: the one at an address, else one of this machine for as long as this lasts.

    `sweeps.cluster.ray_environment.prepare_ray` comes before the import of this module.

    Args:
        address: of the cluster.
        stop: interrupted when the cluster is lost.
        scratch: a folder in which Ray on this machine keeps its sockets and logs.

    Yields:
        The machines of the cluster.

    Raises:
        UserError: there is no cluster at the address, it wants a token, or Ray does not start, or
            none of its workers does.
    """
    others = set(_descendants())
    if address is None:
        signals.before_exit(lambda: _kill(set(_descendants()) - others))
    try:
        with _limited(stop):
            _start(address, scratch)
    except UserError:
        if address is not None:
            raise
        _shutdown(others)
        with _limited(stop):  # once more: Ray gives a busy machine 30 s
            _start(address, scratch)
    try:
        with _watched(address, stop):
            if address is None:  # of a cluster `check_storage` asks each machine
                check_workers()
            yield list(machines().values())
    except KeyboardInterrupt:
        raise  # out of the middle of Ray: it ends with this process, see `sweeps.cli.main`
    except BaseException:
        _shutdown(others)
        raise
    else:
        _shutdown(others)


def _start(address: str | None, scratch: Path) -> None:
    if address is None:
        # The driver's working directory would go before all libraries in its workers, unless Ray
        # takes this for the job of a client.
        options: dict[str, Any] = {"job_config": JobConfig(_client_job=True)}
        options |= {"_temp_dir": str(scratch), "include_dashboard": False}
        options |= {"num_cpus": int(local_node().cpus)}
        if (python := shlex.quote(sys.executable)) != sys.executable:  # Ray pastes it into a shell
            options["runtime_env"] = {"py_executable": python}
    elif _is_packed():
        options = {}
    else:
        code = scratch / "code"
        code.mkdir()
        copy_code(code)
        options = {"runtime_env": {"working_dir": str(code)}}
    try:
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


def _is_packed() -> bool:
    """Whether Ray runs this process as a job, whose code its workers have."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return "working_dir" in job.get("runtime_env", {})


def _shutdown(others: Set[psutil.Process]) -> None:
    """Leave the cluster; on this machine end it, with the agents that outlive it for minutes.

    An object reference that is garbage collected on another thread while Ray shuts down ends the
    process: none is left for that.

    Args:
        others: processes that this one started and that are not Ray's.
    """
    gc.collect()
    gc.disable()
    started = set(_descendants()) - others
    for _, process in _daemons():
        process.terminate = process.kill  # they block SIGTERM, see `sweeps.process.signals`
    try:
        ray.shutdown()
    finally:
        gc.enable()
        _kill(started)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended
            process.kill()  # not one that has its number now


def _daemons() -> list[tuple[str, Any]]:
    """The processes of Ray on this machine that this process started, by their kind."""
    node = ray._private.worker._global_node
    return [
        (kind, info.process)
        for kind, started in list((node.all_processes if node else {}).items())
        for info in list(started)
    ]


@contextlib.contextmanager
def _watched(address: str | None, stop: Stop) -> Iterator[None]:
    """Interrupt a sweep whose cluster is lost: Ray itself would end this process, later.

    Of Ray on this machine the processes are looked at; of a cluster, whether its GCS answers.
    """
    is_over = threading.Event()
    is_client = (address or "").startswith("ray://")  # knows the address of its server alone
    gcs = address if address and is_client else ray.get_runtime_context().gcs_address

    def watch() -> None:
        away_since_s = None
        while not is_over.wait(LOOK_S):
            dead = [kind for kind, process in _daemons() if process.poll() is not None]
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

    threading.Thread(target=watch, name="cluster", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _answers(gcs: str) -> bool:
    try:
        check_address(gcs)
    except UserError:
        return False
    return True


@contextlib.contextmanager
def _limited(stop: Stop) -> Iterator[None]:
    """End this process where Ray does not start: it waits for its first workers for ever."""

    def end() -> None:
        why = f"Ray has not started after {WORKER_S:.0f} s{_last_words()}"
        signals.end_process(f"sweeps: {why}", stop.at_deadline, 1)

    timer = threading.Timer(WORKER_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_workers() -> None:
    """Let a worker start and answer: where none can, trials would wait for ever.

    Raises:
        UserError: none has answered after `WORKER_S`.
    """
    passed_on = {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE & os.environ.keys()}
    # As Tune's actors have it: one of them is given this worker next.
    reply = answer.options(runtime_env={"env_vars": DEFAULT_ENV_VARS | passed_on}).remote()
    ready, _ = ray.wait([reply], timeout=WORKER_S)
    try:
        if ready:
            ray.get(ready)
            return
        why = f"no worker of Ray answered within {WORKER_S:.0f} s"
    except RayError as error:
        why = f"the first worker of Ray died: {first_line(error)}"
    raise UserError(f"{why}{_last_words()}")


def _last_words() -> str:
    """What Ray's processes on this machine said last on their error output, if anything."""
    node = ray._private.worker._global_node
    logs = Path(node.get_logs_dir_path()) if node else Path()
    for path in sorted(logs.glob("*.err"), key=lambda path: -path.stat().st_mtime):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
        if said := next(filter(None, reversed(lines)), ""):
            return f"; {path.name} ends with: {said[:SAID]}"
    return ""


def machines() -> dict[str, Node]:
    """The machines of the cluster that take trials, by node id: alive, and not about to leave."""
    leaving = ray._private.state.state.get_draining_nodes()  # where Ray Train itself reads it
    return {
        node["NodeID"]: Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    }


def check_storage(storage: Storage) -> None:
    """Let each machine of the cluster find a marker of ours, and write, read and remove a file.

    Args:
        storage: must be the same for all of them.

    Raises:
        UserError: naming the machines where it is not, or not writable.
    """
    with marked(storage) as marker:
        replies = {
            visit.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(storage, marker): node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"]
        }
        ready, late = ray.wait(list(replies), num_returns=len(replies), timeout=WORKER_S)
        problems = [(replies[reply], ray.get(reply)) for reply in ready]
        problems += [(replies[reply], f"no answer within {WORKER_S:.0f} s") for reply in late]
    said = "; ".join(f"{host}: {problem}" for host, problem in problems if problem)
    if said:
        raise UserError(
            f"not every machine of the cluster can use {storage} ({said}); {storage.remedy}"
        )


def measure_gpus(trials: Sequence[TrialConfig], corpus: Corpus) -> list[GpuUse | None]:
    """What the largest of some trials takes on a whole GPU of each machine that has one.

    Returns:
        Of the machines that had one free soon enough; None for one whose GPU torch cannot use.
    """
    shared, data = ray.put(corpus), [trial.to_dict() for trial in trials]
    replies = [
        _measure.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(data, shared)
        for node, has in machines().items()
        if has.gpus >= 1
    ]
    ready, late = ray.wait(replies, num_returns=len(replies), timeout=FREE_GPU_S)
    for reply in late:
        ray.cancel(reply, force=True)
    uses = []
    for reply in ready:
        try:
            uses.append(ray.get(reply))
        except RayError as error:
            why = str(error).strip().splitlines()[-1]
            logger.warning("a GPU could not be measured: %s", why)
    return uses


@ray.remote(num_cpus=0, num_gpus=1, max_calls=1, max_retries=0)  # type: ignore[untyped-decorator]
def _measure(trials: Sequence[dict[str, Any]], corpus: Corpus) -> GpuUse | None:
    return measure([TrialConfig.from_dict(trial) for trial in trials], corpus)


def measure_packs(
    trials: Sequence[TrialConfig], most: int, corpus: Corpus, share: float
) -> dict[Hashable, int]:
    """How many trials of each shape train best as one, measured on a GPU of one machine.

    Nothing where none was free soon enough.
    """
    reply = _measure_packs.remote([trial.to_dict() for trial in trials], most, corpus, share)
    try:
        sizes: dict[Hashable, int] = ray.get(reply, timeout=FREE_GPU_S + MEASURING_S)
    except RayError as error:
        ray.cancel(reply, force=True)
        logger.warning("packs could not be measured: %s", str(error).strip().splitlines()[-1])
        return {}
    return sizes


@ray.remote(num_cpus=0, num_gpus=1, max_calls=1, max_retries=0)  # type: ignore[untyped-decorator]
def _measure_packs(
    trials: Sequence[dict[str, Any]], most: int, corpus: Corpus, share: float
) -> dict[Hashable, int]:
    return pack_sizes_here([TrialConfig.from_dict(one) for one in trials], most, corpus, share)


class Slots:
    """How many trials of a sweep may run at once: what fits, what it is allowed, and its share.

    Machines come and go, and so do other sweeps: the number is looked up again every few seconds.
    """

    def __init__(self, sweep: str, resources: Resources, demand: Callable[[], float]) -> None:
        """Ask for the first time.

        Args:
            sweep: its name.
            resources: what each trial gets, how many are allowed, and the priority.
            demand: how many packs it could run now.
        """
        self._sweep, self._resources, self._demand = sweep, resources, demand
        named = Shares.options(name=SHARES, lifetime="detached", get_if_exists=True)  # type: ignore[attr-defined]
        self._shares = named.remote()
        self._asked_s = -EVERY_S
        self._limit = 0

    @property
    def limit(self) -> int:
        """Trials that may run now."""
        now_s = time.monotonic()
        if now_s - self._asked_s >= EVERY_S:
            self._asked_s = now_s
            with contextlib.suppress(RayError):  # the cluster is busy: what was said holds
                self._limit = self._ask()
        return self._limit

    def _ask(self) -> int:
        nodes = list(machines().values())
        resources = self._resources
        most = resources.max_concurrent or places(resources, nodes)
        request = ShareRequest(
            self._sweep,
            int(min(most, self._demand())),
            resources.cpus_per_trial,
            resources.gpus,
            resources.priority,
        )
        cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
        limit: int = ray.get(self._shares.claim.remote(request, cpus, gpus), timeout=ANSWER_S)
        return limit

    def leave(self) -> None:
        """Let the others have the share of this sweep at once."""
        with contextlib.suppress(RayError):
            ray.get(self._shares.forget.remote(self._sweep), timeout=ANSWER_S)
