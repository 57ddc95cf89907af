"""The machines of a cluster: which there are, and whether they can use storage and GPUs."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.cluster.remote_tasks import try_storage
from sweeps.resources.gpus import pack_sizes_here
from sweeps.resources.nodes import Node
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.errors import UserError
from trainables.persistence.storage import Storage, marked
from trainables.training.gpu_memory import GpuUse, measure
from trainables.training.pack_size import MEASURING_S

logger = logging.getLogger(__name__)

VISIT_S = 120.0  # how long a machine may take to start a worker and try the storage
FREE_GPU_S = 60.0  # how long a machine may take to have a GPU free, and to measure on it


def machines() -> dict[str, Node]:
    """Return the machines that take trials, by node id: alive, and not being drained."""
    leaving = ray._private.state.state.get_draining_nodes()  # where Ray Train itself reads it
    return {
        node["NodeID"]: Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    }


def check_storage(storage: Storage) -> None:
    """Check that each machine can use the storage: find a marker; write, read and remove a file.

    Args:
        storage: must be the same for all machines.

    Raises:
        UserError: some machines cannot; the message names them.
    """
    with marked(storage) as marker:
        replies = {
            try_storage.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(storage, marker): node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"]
        }
        ready, late = ray.wait(list(replies), num_returns=len(replies), timeout=VISIT_S)
        problems = [(replies[reply], ray.get(reply)) for reply in ready]
        problems += [(replies[reply], f"no answer within {VISIT_S:.0f} s") for reply in late]
    problem_text = "; ".join(f"{host}: {problem}" for host, problem in problems if problem)
    if problem_text:
        raise UserError(
            f"not every machine of the cluster can use {storage} ({problem_text}); {storage.remedy}"
        )


def measure_gpus(trials: Sequence[TrialConfig], corpus: Corpus) -> list[GpuUse | None]:
    """Measure how much of a GPU the largest of some trials uses, on each machine that has one.

    Returns:
        An entry for each machine that had a whole GPU free within `FREE_GPU_S`; None if torch
        cannot use that GPU.
    """
    shared, data = ray.put(corpus), [trial.to_dict() for trial in trials]
    replies = [
        _measure.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(data, shared)
        for node, machine in machines().items()
        if machine.gpus >= 1
    ]
    ready, late = ray.wait(replies, num_returns=len(replies), timeout=FREE_GPU_S)
    for reply in late:
        ray.cancel(reply, force=True)
    uses = []
    for reply in ready:
        try:
            uses.append(ray.get(reply))
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            logger.warning("a GPU could not be measured: %s", reason)
    return uses


@ray.remote(num_cpus=0, num_gpus=1, max_calls=1, max_retries=0)  # type: ignore[untyped-decorator]
def _measure(trials: Sequence[dict[str, object]], corpus: Corpus) -> GpuUse | None:
    return measure([TrialConfig.from_dict(trial) for trial in trials], corpus)


def measure_packs(
    trials: Sequence[TrialConfig], most: int, corpus: Corpus, share: float
) -> dict[Hashable, int]:
    """Measure on one GPU how many trials of each shape train fastest as a pack.

    Args:
        trials: examples of the shapes.
        most: the largest pack to try.
        corpus: the text to train on.
        share: of the GPU, for a pack.

    Returns:
        The size by shape; empty if no GPU was free in time.
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
    trials: Sequence[dict[str, object]], most: int, corpus: Corpus, share: float
) -> dict[Hashable, int]:
    return pack_sizes_here([TrialConfig.from_dict(trial) for trial in trials], most, corpus, share)
