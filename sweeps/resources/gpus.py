"""What share of a GPU a trial gets: chosen from what one takes, larger where that was too little.

Knows no Ray.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch

from sweeps.planning.estimate import Estimate
from sweeps.resources.nodes import Node
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.gpu_memory import GpuUse, measure
from trainables.training.pack_size import best_sizes

logger = logging.getLogger(__name__)

FILLED = 0.9  # of a GPU's memory: allocators fragment, and not every trial is measured
MOST = 16  # trials on a GPU, where their processes take turns
MOST_PACKS = 2  # where trials are packed: one pack trains while the other one's worker is busy


def pick(use: GpuUse, most: int = MOST) -> float:
    """The share of a GPU with which as many trials as fit share it, at least one and at most so
    many."""
    fit = int(FILLED * use.gpu_bytes / use.trial_bytes)
    return 1 / max(1, min(fit, most))


def settle(
    resources: Resources, nodes: Sequence[Node], ask: Callable[[], Sequence[GpuUse | None]]
) -> tuple[Resources, str]:
    """Put a number of GPUs in the place of `auto`.

    Args:
        resources: returned as they are where they have a number.
        nodes: the machines of the cluster.
        ask: gives what the largest trial takes on the machines that have a GPU; None for one
            whose GPU torch cannot use, nothing for one that did not answer.

    Returns:
        The resources, and why they are so, in words; none where nothing was to choose.
    """
    if not resources.is_auto:
        return resources, ""
    if not any(node.gpus >= 1 for node in nodes):
        return resources.settled(0), "there is none: the trials train on CPUs"
    answers = ask()
    uses = [use for use in answers if use]
    if uses:
        most = min(MOST_PACKS if resources.is_packing else MOST, _by_cpus(resources, nodes))
        share, use = max(((pick(use, most), use) for use in uses), key=lambda pair: pair[0])
        return resources.settled(share), _in_words(share, use)
    if answers:
        return resources.settled(0), "torch can use none here: the trials train on CPUs"
    return resources.settled(1), (
        "none could be measured: each trial gets a whole one, unless resources.gpus_per_trial is a"
        " number"
    )


def measured_here(trials: Sequence[TrialConfig], corpus: Corpus) -> list[GpuUse | None]:
    """What the largest of some trials takes on the first GPU of this machine."""
    try:
        return [measure(trials, corpus)]
    except RuntimeError as error:  # of CUDA, on a GPU that is full or broken, say
        logger.warning("the GPU could not be measured: %s", str(error).splitlines()[0])
        return []


def pack_sizes_here(
    trials: Sequence[TrialConfig], most: int, corpus: Corpus, share: float
) -> dict[Hashable, int]:
    """How many trials of each shape train best as one on a share of this machine's first GPU.

    None of them where torch can use no GPU.
    """
    if not torch.cuda.is_available():
        return {}
    device = torch.device("cuda")
    _, all_bytes = torch.cuda.mem_get_info(device)
    return best_sizes(trials, most, corpus, device, min(1.0, share) * FILLED * all_bytes)


def largest(trials: Iterable[TrialConfig], cost: Estimate) -> list[TrialConfig]:
    """One trial of each shape, that with the highest estimate of its memory first."""
    shapes = {shape(trial): trial for trial in trials}
    return sorted(shapes.values(), key=lambda trial: -cost.costs[trial.key].memory_bytes)


def shape(trial: TrialConfig) -> str:
    """Equal for trials that take equal memory."""
    training = trial.training
    return repr((trial.model, training.block_size, training.batch_size, training.evaluation))


class GpuShares:
    """What share of a GPU each trial gets, until the driver ends.

    When one ran out of memory, all of its shape get more.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._grown: dict[str, float] = {}  # by shape

    def of(self, trial: TrialConfig) -> float:
        return self._grown.get(shape(trial), self._first)

    def grow(self, trial: TrialConfig, had: float) -> float | None:
        """The share of a trial from now on that ran out of memory.

        Returns:
            None where there is no larger one: it had a whole GPU, or none.
        """
        if not 0 < had < 1:
            return None
        self._grown[shape(trial)] = share = max(self.of(trial), min(1.0, 2 * had))
        return share


def _by_cpus(resources: Resources, nodes: Sequence[Node]) -> int:
    """For how many trials on each GPU there are CPUs: with a larger share more would not run."""
    with_gpu = [node for node in nodes if node.gpus >= 1]
    return max(math.ceil(node.cpus / resources.cpus_per_trial / node.gpus) for node in with_gpu)


def _in_words(share: float, use: GpuUse) -> str:
    trial_gib, gpu_gib = use.trial_bytes / 2**30, use.gpu_bytes / 2**30
    if use.trial_bytes >= use.gpu_bytes:
        return f"a trial needs more than its {gpu_gib:.1f} GiB: each gets a whole one, and may fail"
    return f"a trial takes {trial_gib:.1f} GiB of {gpu_gib:.1f} GiB: {share:.3g} of a GPU each"
