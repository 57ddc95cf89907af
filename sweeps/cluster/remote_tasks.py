"""The tasks and the actor that run on the machines of a cluster besides trials.

Each starts a process there, so this module imports little.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import ray

from sweeps.resources.fair_share import ShareRequest, fair_shares
from trainables.persistence.storage import Storage, problem_here

if TYPE_CHECKING:
    from sweeps.resources.gpu_report import GpuReport

FORGET_S = 20.0  # a sweep that has not asked for this long is over
NAMESPACE, SHARES = "bigram-sweeps", "shares-1"  # of the actor `Shares`
# Without it Ray hides all GPUs from a task that asks for none.
SEES_GPUS = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
HEAD = "node:__internal_head__"  # a resource that only the head has


@ray.remote(num_cpus=0, resources={"a worker ahead of trials": 1})  # type: ignore[untyped-decorator]
def start_worker() -> None:
    """Never run, as no machine has the resource: Ray starts a worker ahead for it, and waits.

    That worker may train trials. Ray gives no worker to an actor that had a task before.
    """


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def try_storage(storage: Storage, marker: str) -> str:
    """Return why this machine cannot use the storage; empty if it can."""
    return problem_here(storage, marker)


@ray.remote(num_cpus=0, max_retries=0, runtime_env=SEES_GPUS)  # type: ignore[untyped-decorator]
def report_gpus() -> GpuReport | None:
    """Return the GPUs of this machine; it takes none of them from trials."""
    from sweeps.resources.gpu_report import gpus_here  # imports torch

    return gpus_here()


@ray.remote(num_cpus=0, max_restarts=-1, resources={HEAD: 0.001})
class Shares:
    """Divides a cluster among its sweeps: one actor on the head, which outlives them."""

    def __init__(self) -> None:
        self._claims: dict[str, ShareRequest] = {}  # in the order of arrival
        self._claimed_s: dict[str, float] = {}

    def claim(self, request: ShareRequest, cpus: float, gpus: float) -> int:
        """Record the request of a sweep, and return how many trials it may run."""
        now_s = time.monotonic()
        self._claimed_s[request.sweep] = now_s
        self._claims[request.sweep] = request
        for sweep in [name for name, s in self._claimed_s.items() if now_s - s > FORGET_S]:
            self.forget(sweep)
        return fair_shares(list(self._claims.values()), cpus, gpus)[request.sweep]

    def forget(self, sweep: str) -> None:
        """Remove a sweep that is over."""
        self._claims.pop(sweep, None)
        self._claimed_s.pop(sweep, None)
