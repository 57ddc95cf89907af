"""How the sweeps of a cluster share it: who may run how many trials at once. Knows no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What a sweep asks of the cluster."""

    sweep: str
    wanted: int  # trials that it would run at once if it were alone
    cpus: float  # of each trial
    gpus: float
    priority: float = 1.0  # twice the priority, twice the share


def allot(claims: Sequence[Claim], cpus: float, gpus: float) -> dict[str, int]:
    """How many trials each sweep may run at once, so that none envies another.

    Dominant resource fairness by progressive filling (Ghodsi et al., NSDI 2011, algorithm 1): the
    next trial goes to the sweep whose largest share of any resource is the smallest, by priority.
    What one does not want the others get.

    Args:
        claims: in the order in which the sweeps came; of equals the first is served first.
        cpus: of the whole cluster.
        gpus: of the whole cluster.

    Returns:
        The number of trials by the name of the sweep, at most what it wants. A sweep that is alone
        gets all that it wants, more than fits as well: the cluster may grow.
    """
    if len(claims) == 1:
        return {claims[0].sweep: claims[0].wanted}
    given = {claim.sweep: 0 for claim in claims}
    while True:
        used_cpus = sum(given[claim.sweep] * claim.cpus for claim in claims)
        used_gpus = sum(given[claim.sweep] * claim.gpus for claim in claims)
        hungry = [
            claim
            for claim in claims
            if given[claim.sweep] < claim.wanted
            and used_cpus + claim.cpus <= cpus + 1e-9
            and used_gpus + claim.gpus <= gpus + 1e-9
        ]
        if not hungry:
            return given
        poorest = min(
            hungry,
            key=lambda claim: given[claim.sweep] * _dominant(claim, cpus, gpus) / claim.priority,
        )
        given[poorest.sweep] += 1


def _dominant(claim: Claim, cpus: float, gpus: float) -> float:
    """The largest part of any resource that one trial takes."""
    return max(claim.cpus / cpus, claim.gpus / gpus if gpus else 0.0)
