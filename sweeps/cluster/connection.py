"""The connection of a sweep to Ray: from its start to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ray.tune.execution import class_cache

from sweeps.cluster.machines import machines
from sweeps.cluster.ray_processes import last_error, watched
from sweeps.cluster.ray_start import RayStart
from sweeps.process.stopping import Stop
from sweeps.resources.nodes import Node
from trainables.errors import UserError

WORKER_S = 120.0  # how long the first worker may take, on a very busy machine


@contextlib.contextmanager
def connected(start: RayStart, stop: Stop) -> Iterator[list[Node]]:
    """Context manager: be connected to a Ray cluster, or to Ray on this machine.

    Args:
        start: of Ray, which is ready. Ray on this machine ends with this.
        stop: is interrupted if the cluster is lost.

    Yields:
        The machines of the cluster.

    Raises:
        UserError: the first worker on this machine does not start.
    """
    try:
        with watched(start.address, stop):
            if start.address is None:  # on a cluster `check_storage` asks each machine
                _reuse_workers()
                if not start.wait_for_worker(WORKER_S):  # trials would wait for ever
                    reason = f"no worker of Ray answered within {WORKER_S:.0f} s"
                    raise UserError(f"{reason}{last_error()}")
            yield list(machines().values())
    except KeyboardInterrupt:
        start.remove_folder()
        raise  # from within Ray, which ends with this process, see `sweeps.cli.main`
    except BaseException:
        start.shut_down()
        raise
    else:
        start.shut_down()


def _reuse_workers() -> None:
    """Let Tune's actors use any worker: those on this machine have its environment already.

    Otherwise Tune copies some variables, and Ray starts another worker for each set of them.
    """
    class_cache.DEFAULT_ENV_VARS = {}
    class_cache.ENV_VARS_TO_PROPAGATE = set()
