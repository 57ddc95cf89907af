"""How many trials of each shape form a pack on GPUs. Knows no Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping

from sweeps.planning.gpu_memory import MOST_MEMBERS, UNKNOWN_PACK, GpuMemory
from sweeps.planning.plan import Plan
from trainables.config import TrialConfig
from trainables.training.stack import stack_shape

ROUNDS = 10  # of suggestions in a search, at least: it learns between them
SUGGESTIONS = 100  # assumed of a study without a limit

PackSeconds = Callable[[TrialConfig, int], float]  # of a pack with so many trials like this one


class GpuPackSizes:
    """The size of packs on GPUs: as many trials as fit, spread over the GPUs."""

    def __init__(
        self,
        memory: GpuMemory,
        room_bytes: float,
        most: int = MOST_MEMBERS,
        spread: Mapping[Hashable, int] | None = None,
    ) -> None:
        """Know the limits.

        Args:
            memory: of the trials.
            room_bytes: GPU memory of each pack, with its process.
            most: trials of any pack.
            spread: the most trials of a pack, by `stack_shape`.
        """
        self._memory, self._most, self._spread = memory, most, spread or {}
        self._room_bytes = room_bytes - memory.process_bytes

    def __call__(self, trial: TrialConfig) -> int:
        """Return how many trials of this one's shape may form a pack, at least one."""
        most = min(self._most, self._spread.get(stack_shape(trial), self._most))
        member = self._memory.member(trial)
        return max(1, member.most(self._room_bytes, most) if member else min(most, UNKNOWN_PACK))


def largest_in_search(plan: Plan) -> int:
    """Return the largest pack of a plan's search: a tenth of a study's suggestions.

    A study learns nothing between trials of a pack.
    """
    if not plan.studies:
        return MOST_MEMBERS
    return len(plan.sweep.seeds) * max(1, (plan.share or SUGGESTIONS) // ROUNDS)


def spread_over(
    gpus: int,
    trials: Iterable[TrialConfig],
    size_of: Callable[[TrialConfig], int],
    seconds: PackSeconds,
) -> dict[Hashable, int]:
    """Return the sizes of packs, by `stack_shape`, with which all GPUs end soonest.

    Starting with the largest packs, those of the shape that takes longest are made smaller while
    they take longer than the GPUs have to work on average. On one GPU the largest are best: a pack
    takes less time than its trials in two packs.

    Args:
        gpus: how many.
        trials: to be trained.
        size_of: the largest size of a pack, for a trial of its shape.
        seconds: expected of a pack.
    """
    counts = Counter(shape for trial in trials if (shape := stack_shape(trial)) is not None)
    firsts = {stack_shape(trial): trial for trial in trials}
    sizes = {shape: _even(count, size_of(firsts[shape])) for shape, count in counts.items()}
    packs_s = {shape: seconds(firsts[shape], size) for shape, size in sizes.items()}
    best, best_s = dict(sizes), math.inf
    while sizes:
        longest = max(packs_s, key=lambda shape: packs_s[shape])
        work_s = sum(math.ceil(counts[shape] / sizes[shape]) * packs_s[shape] for shape in sizes)
        if (end_s := max(packs_s[longest], work_s / gpus)) < best_s:
            best, best_s = dict(sizes), end_s
        if packs_s[longest] <= work_s / gpus or sizes[longest] == 1:
            break
        sizes[longest] = _even(counts[longest], sizes[longest] - 1)
        packs_s[longest] = seconds(firsts[longest], sizes[longest])
    return best


def _even(count: int, most: int) -> int:
    """Return the size of packs of `most` trials at most, as few as possible and as equal."""
    return math.ceil(count / math.ceil(count / most))
