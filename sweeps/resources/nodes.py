"""The CPUs and GPUs of machines, and how many trials fit on them at once. Knows no Ray."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sweeps.resources.cpus import usable_cpus
from sweeps.spec.sweep_file import Resources
from trainables.errors import UserError

CONNECT_S = 5.0


@dataclass(frozen=True)
class Node:
    """All CPUs and GPUs of one machine."""

    cpus: float
    gpus: float


def local_node() -> Node:
    """Return the CPUs and GPUs that Ray would find on this machine."""
    return Node(usable_cpus(), torch.cuda.device_count())


def concurrency(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials run at once.

    Args:
        resources: of a trial, with a number of GPUs.
        nodes: the machines.

    Raises:
        UserError: no machine can run a single one.
    """
    fitting = places(resources, nodes)
    if fitting == 0:
        cpus, gpus = resources.cpus_per_trial, resources.gpus
        has = "; ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes)
        raise UserError(
            f"a trial wants {cpus:g} CPUs and {gpus:g} GPUs on one machine, and no machine has"
            f" them (there is: {has}); lower resources.cpus_per_trial or resources.gpus_per_trial"
        )
    return min(fitting, resources.max_concurrent or fitting)


def check_this_machine(resources: Resources) -> None:
    """Refuse trials that this machine can never run; GPUs that are `auto` do not count.

    Raises:
        UserError: it has too few CPUs or GPUs for a single trial.
    """
    concurrency(resources.settled(0), [local_node()])


def places(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials fit on the machines at once; a trial does not span two machines."""
    return sum(_places_on(node, resources.cpus_per_trial, resources.gpus) for node in nodes)


def _places_on(node: Node, cpus: float, gpus: float) -> int:
    """Return how many trials fit on a machine; each takes `cpus` and `gpus`."""
    by_cpu = int(node.cpus / cpus + 1e-9)
    if gpus == 0:
        return by_cpu
    on_one_gpu = int(1 / gpus + 1e-9)  # a fraction never spans two GPUs
    by_gpu = int(node.gpus) * on_one_gpu if gpus <= 1 else int(node.gpus // gpus)
    return min(by_cpu, by_gpu)


def check_address(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would wait for minutes.

    Args:
        address: of a Ray cluster, ``host:port`` or ``ray://host:port``; ``auto`` is left to Ray.

    Raises:
        UserError: no connection can be made.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"no Ray cluster answers at {address} ({error})") from None
