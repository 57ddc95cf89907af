"""A Ray cluster: joining it, checking its machines, and how much of it a sweep may use."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.errands import Shares, visit
from sweeps.gpus import pack_sizes_here
from sweeps.jobs.package import copy_code
from sweeps.resources import Node, local_node, places
from sweeps.shares import Claim
from sweeps.spec import Resources
from trainables.config import TrialConfig
from trainables.corpus import Corpus
from trainables.errors import UserError
from trainables.gpu_memory import GpuUse, measure
from trainables.pack_size import MEASURING_S
from trainables.storage import Storage, marked

logger = logging.getLogger(__name__)

EVERY_S = 2.0  # how often a sweep asks what it may use
ANSWER_S = 10.0
FREE_GPU_S = 60.0  # how long a machine may take to have a GPU free, and to measure on it
NAMESPACE, SHARES = "bigram-sweeps", "shares-1"


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[list[Node]]:
    """A Ray cluster: the one at an address, else one of this machine for as long as this lasts.

    `sweeps.ray_environment.prepare_ray` comes before the import of this module.

    Yields:
        The machines of the cluster.

    Raises:
        UserError: there is no cluster at the address, or it wants a token.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as scratch:
        if address is None:
            paths = [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
            search = os.pathsep.join(filter(None, paths))  # where the user's models come from
            here = {"num_cpus": int(local_node().cpus), "include_dashboard": False}
            options = {"runtime_env": {"env_vars": {"PYTHONPATH": search}}, **here}
        elif _is_packed():
            options = {}
        else:
            folder = scratch.enter_context(tempfile.TemporaryDirectory(prefix="sweeps-code-"))
            copy_code(Path(folder))
            options = {"runtime_env": {"working_dir": folder}}
        try:
            ray.init(
                address=address or "local",
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
        except (ConnectionError, ValueError, RayError, RuntimeError) as error:
            raise UserError(
                f"no Ray cluster answers at {address}, or it wants a token (RAY_AUTH_MODE=token"
                f" and RAY_AUTH_TOKEN_PATH): {error}"
            ) from None
    try:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in place
        yield list(machines().values())
    except KeyboardInterrupt:
        raise  # out of the middle of Ray: it ends with this process, see `sweeps.command`
    except BaseException:
        _shutdown()
        raise
    else:
        _shutdown()


def _is_packed() -> bool:
    """Whether Ray runs this process as a job, whose code its workers have."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return "working_dir" in job.get("runtime_env", {})


def _shutdown() -> None:
    """Leave the cluster.

    An object reference that is garbage collected on another thread while Ray shuts down ends the
    process: none is left for that.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


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
            node["NodeManagerAddress"]: visit.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(storage, marker)
            for node in ray.nodes()
            if node["Alive"]
        }
        problems = {host: ray.get(reply) for host, reply in replies.items()}
    said = "; ".join(f"{host}: {problem}" for host, problem in problems.items() if problem)
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
        claim = Claim(
            self._sweep,
            int(min(most, self._demand())),
            resources.cpus_per_trial,
            resources.gpus,
            resources.priority,
        )
        cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
        limit: int = ray.get(self._shares.claim.remote(claim, cpus, gpus), timeout=ANSWER_S)
        return limit

    def leave(self) -> None:
        """Let the others have the share of this sweep at once."""
        with contextlib.suppress(RayError):
            ray.get(self._shares.forget.remote(self._sweep), timeout=ANSWER_S)
