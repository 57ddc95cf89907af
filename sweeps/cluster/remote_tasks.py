"""What runs on the machines of a cluster besides trials.

Each of these starts a process there, so this module imports little.
"""

from __future__ import annotations

import time

import ray

from sweeps.resources.fair_share import ShareRequest, fair_shares
from trainables.persistence.storage import Storage, problem_here

FORGET_S = 20.0  # a sweep that has not asked for so long is over
HEAD = "node:__internal_head__"  # a resource that Ray gives to the head alone


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def answer() -> None:
    """Show that a worker runs."""


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def visit(storage: Storage, marker: str) -> str:
    """What keeps this machine from using the storage, or nothing."""
    return problem_here(storage, marker)


@ray.remote(num_cpus=0, max_restarts=-1, resources={HEAD: 0.001})
class Shares:
    """Knows the sweeps of a cluster: one such actor, on the head, that outlives them."""

    def __init__(self) -> None:
        self._claims: dict[str, ShareRequest] = {}  # in the order in which the sweeps came
        self._heard_s: dict[str, float] = {}

    def claim(self, request: ShareRequest, cpus: float, gpus: float) -> int:
        """Take the claim of a sweep; return how many trials it may run."""
        now_s = time.monotonic()
        self._heard_s[request.sweep] = now_s
        self._claims[request.sweep] = request
        for sweep in [name for name, s in self._heard_s.items() if now_s - s > FORGET_S]:
            self.forget(sweep)
        return fair_shares(list(self._claims.values()), cpus, gpus)[request.sweep]

    def forget(self, sweep: str) -> None:
        """A sweep is over."""
        self._claims.pop(sweep, None)
        self._heard_s.pop(sweep, None)
