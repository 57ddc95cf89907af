"""The share of a GPU that a trial gets: measured at first, and enlarged if it was too small.

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
MOST = 16  # trials on a GPU; their processes take turns
MOST_PACKS = 2  # packs on a GPU: one trains while the worker of the other is busy


def share_for(use: GpuUse, most: int = MOST) -> float:
    """Return the share 1/n of a GPU for the n trials that fit on it, n from 1 to `most`."""
    fit = int(FILLED * use.gpu_bytes / use.trial_bytes)
    return 1 / max(1, min(fit, most))


def choose_gpus(
    resources: Resources, nodes: Sequence[Node], measure_uses: Callable[[], Sequence[GpuUse | None]]
) -> tuple[Resources, str]:
    """Replace `auto` by a number of GPUs for each trial.

    Args:
        resources: returned unchanged if they have a number.
        nodes: the machines.
        measure_uses: returns what the largest trial takes on each machine with a GPU; None for a
            GPU that torch cannot use. A machine that does not answer is missing.

    Returns:
        The resources, and the reason for the number in words; empty if there was no `auto`.
    """
    if not resources.is_auto:
        return resources, ""
    if not any(node.gpus >= 1 for node in nodes):
        return resources.settled(0), "there is none: the trials train on CPUs"
    answers = measure_uses()
    uses = [use for use in answers if use]
    if uses:
        most = min(MOST_PACKS if resources.is_packing else MOST, _by_cpus(resources, nodes))
        share, use = max(((share_for(use, most), use) for use in uses), key=lambda pair: pair[0])
        return resources.settled(share), _in_words(share, use)
    if answers:
        return resources.settled(0), "torch can use none here: the trials train on CPUs"
    return resources.settled(1), (
        "none could be measured: each trial gets a whole one, unless resources.gpus_per_trial is a"
        " number"
    )


def measured_here(trials: Sequence[TrialConfig], corpus: Corpus) -> list[GpuUse | None]:
    """Measure what the largest of some trials takes on the first GPU of this machine.

    Returns:
        One measurement, None if torch cannot use the GPU, or nothing if it cannot be measured.
    """
    try:
        return [measure(trials, corpus)]
    except RuntimeError as error:  # of CUDA, on a GPU that is full or broken, say
        logger.warning("the GPU could not be measured: %s", str(error).splitlines()[0])
        return []


def pack_sizes_here(
    trials: Sequence[TrialConfig], most: int, corpus: Corpus, share: float
) -> dict[Hashable, int]:
    """Measure how many trials of each shape train fastest as one, on this machine's first GPU.

    Args:
        trials: one or more of each shape.
        most: the largest number to try.
        corpus: that they train on.
        share: of the GPU's memory that a pack may fill.

    Returns:
        Numbers of trials by `stack_shape`; empty if torch can use no GPU.
    """
    if not torch.cuda.is_available():
        return {}
    device = torch.device("cuda")
    _, all_bytes = torch.cuda.mem_get_info(device)
    return best_sizes(trials, most, corpus, device, min(1.0, share) * FILLED * all_bytes)


def largest_of_each_shape(trials: Iterable[TrialConfig], cost: Estimate) -> list[TrialConfig]:
    """Return one trial of each shape, ordered by estimated memory, the largest first."""
    shapes = {memory_key(trial): trial for trial in trials}
    return sorted(shapes.values(), key=lambda trial: -cost.costs[trial.key].memory_bytes)


def memory_key(trial: TrialConfig) -> str:
    """Return a key that is equal for trials that take equal memory."""
    training = trial.training
    return repr((trial.model, training.block_size, training.batch_size, training.evaluation))


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


def _by_cpus(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials for each GPU the CPUs allow; more would not run at once."""
    with_gpu = [node for node in nodes if node.gpus >= 1]
    return max(math.ceil(node.cpus / resources.cpus_per_trial / node.gpus) for node in with_gpu)


def _in_words(share: float, use: GpuUse) -> str:
    trial_gib, gpu_gib = use.trial_bytes / 2**30, use.gpu_bytes / 2**30
    if use.trial_bytes >= use.gpu_bytes:
        return f"a trial needs more than its {gpu_gib:.1f} GiB: each gets a whole one, and may fail"
    return f"a trial takes {trial_gib:.1f} GiB of {gpu_gib:.1f} GiB: {share:.3g} of a GPU each"
