"""Allocates CPUs, GPUs and packs to the trials of a sweep. Imports no Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sweeps.planning.gpu_memory import GpuMemory
from sweeps.planning.gpu_time import GpuPacks, gpu_seconds
from sweeps.planning.plan import Plan
from sweeps.resources.gpus import FILLED, Reports, choose_gpus, gpu_count, usable_gpus
from sweeps.resources.nodes import Node, concurrency
from sweeps.resources.pack_sizes import GpuPackSizes, largest_in_search, spread_over
from sweeps.resources.packs import Packs
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.training.loop import Splits
from trainables.training.stack import stack_shape


@dataclass(frozen=True)
class Allocation:
    """The resources of each trial, the number of packs at once, and the packs themselves."""

    resources: Resources  # with a number of GPUs
    gpu_reason: str  # where the trials train and why; empty if the file says so or there is no GPU
    at_once: int  # packs; a trial that trains alone is a pack of one
    packs: Packs
    pack_counts: str  # how many packs of each size there are; empty if all trials train alone
    largest_pack: int  # trials
    gpu_packs: GpuPacks | None  # for an estimate; None if the trials train on CPUs
    speed: int  # packs at once that do not slow each other down: those on one GPU do


def allocate(
    plan: Plan, trials: Sequence[TrialConfig], nodes: Sequence[Node], reports: Reports
) -> Allocation:
    """Decide what the trials of a sweep get on some machines, by what they need.

    Args:
        plan: of the sweep.
        trials: known trials that are to be trained; the examples of the plan stand for the others.
        nodes: the machines.
        reports: of the GPUs of those that answered.

    Raises:
        UserError: no machine can run a trial.
    """
    asked, memory = plan.sweep.resources, GpuMemory(plan.corpus)
    gpu = usable_gpus(nodes, reports)
    alone_bytes = memory.alone_bytes((*trials, *plan.examples)) if asked.is_auto and gpu else 0
    resources, reason = choose_gpus(asked, nodes, reports, alone_bytes)
    at_once = speed = concurrency(resources, nodes)
    sizes = None
    if gpu and resources.gpus:
        speed = min(at_once, gpu_count(nodes))
        room_bytes = FILLED * gpu.free_bytes * min(1.0, resources.gpus)
        sizes = _pack_sizes(plan, trials, memory, room_bytes, speed)
    packs = Packs(resources, sizes)
    gpu_packs = _gpu_packs(plan, packs, trials, memory) if sizes else None
    shown = trials or plan.examples
    return Allocation(
        resources=resources,
        gpu_reason=reason,
        at_once=at_once,
        packs=packs,
        pack_counts=packs.in_words(shown),
        largest_pack=packs.largest(shown),
        gpu_packs=gpu_packs,
        speed=speed,
    )


def _pack_sizes(
    plan: Plan, trials: Sequence[TrialConfig], memory: GpuMemory, room_bytes: float, gpus: int
) -> GpuPackSizes:
    """Return the sizes of packs that fit into some bytes; those of a grid are spread over GPUs."""
    splits = Splits.of(plan.corpus, torch.device("cpu"))
    fitting = GpuPackSizes(memory, room_bytes, largest_in_search(plan))
    if plan.studies:  # most trials are not known yet
        return fitting
    spread = spread_over(
        gpus, trials, fitting, lambda trial, size: gpu_seconds(trial, size, memory, splits)
    )
    return GpuPackSizes(memory, room_bytes, spread=spread)


def _gpu_packs(
    plan: Plan, packs: Packs, trials: Sequence[TrialConfig], memory: GpuMemory
) -> GpuPacks:
    """Return the packs for an estimate: those of a grid have no more members than it has trials."""
    counts = Counter() if plan.studies else Counter(map(stack_shape, trials))

    def members(trial: TrialConfig) -> int:
        size = packs.size(trial)
        return min(size, counts.get(stack_shape(trial), size))

    return GpuPacks(memory, members)
