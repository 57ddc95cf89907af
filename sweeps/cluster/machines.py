"""The machines of a cluster: which there are, and whether they can use storage and GPUs."""

from __future__ import annotations

import logging

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.cluster.remote_tasks import report_gpus, try_storage
from sweeps.resources.gpu_report import GpuReport
from sweeps.resources.nodes import Node
from trainables.errors import UserError
from trainables.persistence.storage import Storage, marked

logger = logging.getLogger(__name__)

VISIT_S = 120.0  # how long a machine may take to start a worker and try the storage
REPORT_S = 60.0  # how long a machine may take to start a worker and report its GPUs


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


def gpu_reports() -> list[GpuReport | None]:
    """Return what the machines with GPUs report of them.

    Returns:
        An entry for each machine that answers within `REPORT_S`; None if torch finds no GPU there.
    """
    nodes = [node for node, machine in machines().items() if machine.gpus >= 1]
    if not nodes:
        return []
    replies = [
        report_gpus.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        for node in nodes
    ]
    ready, late = ray.wait(replies, num_returns=len(replies), timeout=REPORT_S)
    for reply in late:
        ray.cancel(reply, force=True)
    reports = []
    for reply in ready:
        try:
            reports.append(ray.get(reply))
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            logger.warning("a machine did not report its GPUs: %s", reason)
    return reports
