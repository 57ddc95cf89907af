"""How the sweeps of a cluster share it: how many trials each may run at once. Knows no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ShareRequest:
    """The trials that a sweep wants to run on a cluster."""

    sweep: str
    wanted: int  # trials that it would run at once on its own
    cpus: float  # of each trial
    gpus: float
    priority: float = 1.0  # twice the priority, twice the share


def fair_shares(requests: Sequence[ShareRequest], cpus: float, gpus: float) -> dict[str, int]:
    """Return how many trials each sweep may run at once, in fair shares.

    Dominant resource fairness by progressive filling (Ghodsi et al., NSDI 2011, algorithm 1): the
    next trial goes to the sweep whose largest share of any resource is the smallest, by priority.
    What a sweep does not want goes to the others.

    Args:
        requests: in the order in which the sweeps arrived; of equal ones the first is served first.
        cpus: of the whole cluster.
        gpus: of the whole cluster.

    Returns:
        The number of trials by the name of the sweep, at most as many as it wants. A sweep that is
        alone gets all that it wants, even more than fit: the cluster may grow.
    """
    if len(requests) == 1:
        return {requests[0].sweep: requests[0].wanted}
    given = {request.sweep: 0 for request in requests}
    while True:
        used_cpus = sum(given[request.sweep] * request.cpus for request in requests)
        used_gpus = sum(given[request.sweep] * request.gpus for request in requests)
        hungry = [
            request
            for request in requests
            if given[request.sweep] < request.wanted
            and used_cpus + request.cpus <= cpus + 1e-9
            and used_gpus + request.gpus <= gpus + 1e-9
        ]
        if not hungry:
            return given
        poorest = min(
            hungry,
            key=lambda request: (
                given[request.sweep] * _dominant(request, cpus, gpus) / request.priority
            ),
        )
        given[poorest.sweep] += 1


def _dominant(request: ShareRequest, cpus: float, gpus: float) -> float:
    """Return the largest part of any resource that one trial takes."""
    return max(request.cpus / cpus, request.gpus / gpus if gpus else 0.0)
