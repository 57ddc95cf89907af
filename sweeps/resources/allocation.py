"""Allocates CPUs, GPUs and packs to the trials of a sweep. Imports no Ray."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.planning.estimate import Estimate
from sweeps.planning.plan import Plan
from sweeps.resources.gpus import choose_gpus, largest_of_each_shape
from sweeps.resources.nodes import Node, concurrency
from sweeps.resources.packs import Packs, choose_packs
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.gpu_memory import GpuUse


@dataclass(frozen=True)
class GpuMeter:
    """Measures trials on GPUs: of this machine, or of the machines of a cluster.

    `gpu_uses` takes trials and a corpus; it returns what the largest trial takes on each machine
    with a GPU, and None for a GPU that torch cannot use. A machine that does not answer is missing.

    `pack_sizes` takes trials, the largest size to try, a corpus and the share of a GPU that a pack
    gets; it returns the size of a pack that trains fastest, by `stack_shape`.
    """

    gpu_uses: Callable[[Sequence[TrialConfig], Corpus], Sequence[GpuUse | None]]
    pack_sizes: Callable[[Sequence[TrialConfig], int, Corpus, float], Mapping[Hashable, int]]


@dataclass(frozen=True)
class Allocation:
    """The resources of each trial, the number of packs at once, and the packs themselves."""

    resources: Resources  # with a number of GPUs
    gpu_reason: str  # why it is this number; empty if the sweep file gives it
    at_once: int  # packs; a trial that trains alone is a pack of one
    packs: Packs
    pack_counts: str  # how many packs of each size there are; empty if all trials train alone
    largest_pack: int  # trials


def allocate(
    plan: Plan,
    trials: Sequence[TrialConfig],
    cost: Estimate,
    nodes: Sequence[Node],
    meter: GpuMeter,
) -> Allocation:
    """Decide what the trials of a sweep get on some machines; measure what the file leaves open.

    Args:
        plan: of the sweep.
        trials: known trials that are to be trained; the examples of the plan stand for the others.
        cost: of all these trials.
        nodes: the machines.
        meter: measures on their GPUs.

    Raises:
        UserError: no machine can run a trial.
    """
    shapes = largest_of_each_shape((*trials, *plan.examples), cost)
    resources, gpu_reason = choose_gpus(
        plan.sweep.resources, nodes, lambda: meter.gpu_uses(shapes, plan.corpus)
    )
    at_once = concurrency(resources, nodes)
    trials = trials or plan.examples
    packs = choose_packs(
        plan,
        resources,
        len(trials),
        at_once,
        lambda most: meter.pack_sizes(shapes, most, plan.corpus, resources.gpus),
    )
    return Allocation(
        resources, gpu_reason, at_once, packs, packs.in_words(trials), packs.largest(trials)
    )
