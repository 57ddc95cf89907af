"""The share of a GPU that a trial or a pack gets: by a formula at first, and larger if need be.

Knows no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweeps.planning.gpu_memory import memory_key
from sweeps.resources.gpu_report import ASSUMED_BYTES, GpuReport
from sweeps.resources.nodes import Node
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig

FILLED = 0.9  # of a GPU's free memory: allocators fragment
MOST = 16  # trials on a GPU; their processes take turns
MOST_PACKS = 2  # packs on a GPU: one trains while the worker of the other is busy
UNREPORTED = GpuReport("", ASSUMED_BYTES, "no machine has reported it")

Reports = Sequence[GpuReport | None]  # of each machine that was asked; None: it has no GPU


def usable_gpus(nodes: Sequence[Node], reports: Reports) -> GpuReport | None:
    """Return the report of the GPU with the least memory, or None if trials can use none.

    Args:
        nodes: the machines.
        reports: of those that answered.
    """
    if not any(node.gpus >= 1 for node in nodes):
        return None
    if not reports:
        return UNREPORTED
    usable = [report for report in reports if report and report.free_bytes]
    return min(usable, key=lambda report: report.free_bytes, default=None)


def choose_gpus(
    resources: Resources, nodes: Sequence[Node], reports: Reports, alone_bytes: int
) -> tuple[Resources, str]:
    """Replace `auto` by a number of GPUs for each trial.

    Args:
        resources: returned unchanged if they have a number.
        nodes: the machines.
        reports: of the GPUs of the machines that answered.
        alone_bytes: that the largest trial takes if it trains alone.

    Returns:
        The resources, and where the trials train and why, in words. The words are empty if the file
        has a number, or no machine has a GPU.
    """
    if not resources.is_auto:
        return resources, ""
    smallest = usable_gpus(nodes, reports)
    if smallest is None:
        return resources.settled(0), _why_none(nodes, reports)
    fit = int(FILLED * smallest.free_bytes / alone_bytes)
    most = min(MOST_PACKS if resources.is_packing else MOST, _by_cpus(resources, nodes))
    on_one = max(1, min(fit, most))
    needs = "" if fit else f"; a trial needs {alone_bytes / 2**30:.1f} GiB and may fail"
    unit = ("pack" if resources.is_packing else "trial") + ("s" if on_one > 1 else "")
    return (
        resources.settled(1 / on_one),
        f"{_in_words(nodes, smallest)}: {on_one} {unit} at a time on each{needs}",
    )


def gpu_count(nodes: Sequence[Node]) -> int:
    """Return the number of GPUs of all machines."""
    return sum(int(node.gpus) for node in nodes)


def _in_words(nodes: Sequence[Node], smallest: GpuReport) -> str:
    """Describe the GPUs that train."""
    count = gpu_count(nodes)
    name = smallest.name or "GPU"
    memory = f"{smallest.free_bytes / 2**30:.1f} GiB"
    if smallest.problem:
        return f"{count} x {name}, {memory} each assumed ({smallest.problem})"
    return f"{count} x {name}, {memory} free{' or more' if count > 1 else ''}"


def _why_none(nodes: Sequence[Node], reports: Reports) -> str:
    """Return why GPUs that are there cannot be used; empty if there are none."""
    problems = [report.problem for report in reports if report and report.problem]
    if not problems and not gpu_count(nodes):
        return ""
    return f"torch can use none: the trials train on CPUs ({(*problems, 'it finds none')[0]})"


def _by_cpus(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials for each GPU the CPUs allow; more would not run at once."""
    with_gpu = [node for node in nodes if node.gpus >= 1]
    return max(math.ceil(node.cpus / resources.cpus_per_trial / node.gpus) for node in with_gpu)


class GpuShares:
    """The share of a GPU that each trial gets in this run of a sweep.

    When a trial runs out of memory, all trials of its shape get more.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._grown: dict[str, float] = {}  # by memory_key

    def share_of(self, trial: TrialConfig) -> float:
        return self._grown.get(memory_key(trial), self._first)

    def grow(self, trial: TrialConfig, had: float) -> float | None:
        """Give a trial that ran out of memory, and all of its shape, a larger share.

        Args:
            trial: that ran out of memory.
            had: the share that it had then.

        Returns:
            The new share, or None if there is no larger one: it had a whole GPU, or none.
        """
        if not 0 < had < 1:
            return None
        self._grown[memory_key(trial)] = share = max(self.share_of(trial), min(1.0, 2 * had))
        return share
