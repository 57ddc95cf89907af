"""How many trials of a sweep may run at once on a cluster that other sweeps use too."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import ray
from ray.exceptions import RayError

from sweeps.cluster.machines import machines
from sweeps.cluster.remote_tasks import SHARES, Shares
from sweeps.resources.fair_share import ShareRequest
from sweeps.resources.nodes import places
from sweeps.spec.sweep_file import Resources

EVERY_S = 2.0  # how often a sweep asks for its share
ANSWER_S = 10.0


class Slots:
    """Limits the trials of a sweep that run at once: by the machines, `max_concurrent`, its share.

    Machines and other sweeps come and go, so the limit is computed again every few seconds.
    """

    def __init__(self, sweep: str, resources: Resources, demand: Callable[[], float]) -> None:
        """Find the actor that shares the cluster.

        Args:
            sweep: the name.
            resources: of each trial, the most that may run, and the priority.
            demand: returns how many packs the sweep could run now.
        """
        self._sweep, self._resources, self._demand = sweep, resources, demand
        named = Shares.options(name=SHARES, lifetime="detached", get_if_exists=True)  # type: ignore[attr-defined]
        self._shares = named.remote()
        self._asked_s = -EVERY_S
        self._limit = 0

    @property
    def limit(self) -> int:
        """Number of trials that may run now."""
        now_s = time.monotonic()
        if now_s - self._asked_s >= EVERY_S:
            self._asked_s = now_s
            with contextlib.suppress(RayError):  # the cluster is busy: the last limit holds
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

    def release(self) -> None:
        """Give the share of this sweep to the others at once."""
        with contextlib.suppress(RayError):
            ray.get(self._shares.forget.remote(self._sweep), timeout=ANSWER_S)
