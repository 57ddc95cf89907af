"""Training what is left of a sweep with Ray, on this machine or a cluster."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.cluster.ray_environment import prepare_ray
from sweeps.execution.progress import Before, Progress
from sweeps.execution.run import RunContext
from sweeps.planning.earlier import earlier_timings
from sweeps.planning.estimate import Estimate, estimate
from sweeps.planning.forecast import SearchForecast
from sweeps.process.phases import phase
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.state import check_disk
from sweeps.resources.allocation import Allocation, allocate
from sweeps.resources.gpu_report import gpus_here
from sweeps.resources.nodes import Node
from sweeps.search.queue import Queue

if TYPE_CHECKING:
    from sweeps.cluster.slots import Slots


def train(run: RunContext, queue: Queue) -> None:
    """Train what is in the queue, and show the progress.

    Raises:
        UserError: the disk is too small, there is no cluster, or no machine can run a trial.
        KeyboardInterrupt: it was interrupted, and Ray did not stop in time.
    """
    outbox, outcome = run.outbox, run.outcome
    before, recomputed = _done_before(outbox), outbox.recomputed
    cost = _estimate(run, queue, before.done)
    if outcome.storage.disk:
        check_disk(outcome.storage.disk, cost.disk_bytes)
    queue.sort(cost.of)
    with contextlib.ExitStack() as stack:
        scratch, nodes = _connect(run, stack)
        allocation = _allocate(run, queue, nodes)
        if allocation.gpu_packs:
            coming = SearchForecast.of(run.plan, _to_come(run, queue, before.done))
            waiting = queue.waiting
            cost = estimate(waiting, run.plan.corpus, coming, gpu_packs=allocation.gpu_packs)
            queue.sort(cost.of_pack)
        slots = _slots(run, queue, allocation)
        tasks = f"{queue.remaining_in_words}, {allocation.at_once} at once"
        is_known = run.plan.to_come is not None and run.plan.sweep.decide is None
        total = len(run.plan.trials) + (run.plan.to_come or 0) if is_known else None
        progress = Progress(run.plan, queue, cost, total, before, tasks)
        try:
            with progress.shown():
                _run_trials(run, queue, allocation, slots, progress, scratch)
        finally:
            if slots and outcome.stop.cause != "lost":
                slots.release()
            outcome.notes, outcome.restarts = progress.notes, progress.restarts
            outcome.recomputed = outbox.recomputed - recomputed


def _done_before(outbox: Outbox) -> Before:
    """Return what earlier runs of the sweep did."""
    trials = outbox.trials()
    stopped = sum(trial.status == "STOPPED" for trial in trials)
    return Before(sum(trial.is_done for trial in trials), stopped, outbox.best())


def _estimate(run: RunContext, queue: Queue, done: int) -> Estimate:
    """Estimate the cost of what is left, of which `done` trials are done."""
    plan = run.plan
    coming = SearchForecast.of(plan, _to_come(run, queue, done))
    earlier = earlier_timings(run.state)
    return estimate(queue.waiting, plan.corpus, coming, earlier, times=False)


def _to_come(run: RunContext, queue: Queue, done: int) -> int:
    """Return how many trials a search may still add; 0 if there is none or no number limits it."""
    plan = run.plan
    if not plan.studies or plan.to_come is None or queue.is_over:
        return 0
    return max(0, len(plan.trials) + plan.to_come - done - len(queue.waiting))


def _connect(run: RunContext, stack: contextlib.ExitStack) -> tuple[Path, list[Node]]:
    """Start Ray on this machine or join the cluster, until the stack is left.

    Returns:
        A temporary folder, and the machines.
    """
    address = run.options.address
    with phase("starting Ray" if address is None else "joining the cluster", run.say):
        prepare_ray(address)  # Ray is imported late, after this
        from sweeps.cluster.ray_start import RayStart

        start = run.options.ray_start or RayStart(address)
        start.wait(run.outcome.stop)
        from sweeps.cluster.connection import connected
        from sweeps.cluster.machines import check_storage

        nodes = stack.enter_context(connected(start, run.outcome.stop))
    if address is not None:
        check_storage(run.outcome.storage)
    return start.scratch, nodes


def _allocate(run: RunContext, queue: Queue, nodes: list[Node]) -> Allocation:
    """Decide what each trial gets on the machines, and show it."""
    from sweeps.cluster.machines import gpu_reports

    if not run.plan.sweep.resources.may_use_gpus:
        reports = []
    elif run.options.address is None:
        reports = [gpus_here()]
    else:
        reports = gpu_reports()
    allocation = allocate(run.plan, queue.waiting, nodes, reports)
    if allocation.gpu_reason:
        run.say(f"gpu     {allocation.gpu_reason}, {allocation.at_once} at once")
    if allocation.pack_counts:
        run.say(f"packs   {allocation.pack_counts}")
    return allocation


def _slots(run: RunContext, queue: Queue, allocation: Allocation) -> Slots | None:
    """Return the slots of this sweep on a cluster; None on this machine, where it is alone."""
    if run.options.address is None:
        return None
    from sweeps.cluster.slots import Slots

    name = run.plan.sweep.name
    return Slots(name, allocation.resources, lambda: queue.demand(allocation.packs))


def _run_trials(
    run: RunContext,
    queue: Queue,
    allocation: Allocation,
    slots: Slots | None,
    progress: Progress,
    scratch: Path,
) -> None:
    """Train with Ray Tune until the queue is empty, or a stop is requested."""
    from sweeps.execution.tune_runner import run_trials

    stop = run.outcome.stop

    def fail_fast(event: TrialEvent) -> None:
        if run.options.fail_fast and event.kind == "failed":
            stop.request("failed", f"a trial failed: {event.reason}")

    run_trials(
        queue,
        run.plan.corpus,
        allocation.resources,
        allocation.packs,
        lambda: slots.limit if slots else allocation.at_once,
        run.outcome.storage,
        [run.outbox.record, run.delivery.on_event, progress.on_event, fail_fast],
        stop,
        scratch,
    )
