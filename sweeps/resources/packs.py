"""Which trials train together as one, and how many. Knows no Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping

from sweeps.planning.plan import Plan
from sweeps.spec.sweep_file import AUTO, OFF, Resources
from trainables.config import TrialConfig
from trainables.training.stack import stack_shape

ROUNDS = 10  # in which a search is to learn
SUGGESTIONS = 100  # of a study without a limit


class Packs:
    """How many trials of each shape a pack has at most, until the driver ends.

    A shape that ran out of memory gets half as many; trials that cannot be together train alone.
    """

    def __init__(
        self,
        resources: Resources,
        measured: Mapping[Hashable, int] | None = None,
    ) -> None:
        """Start with what was asked for.

        Args:
            resources: of the sweep.
            measured: what pays on the GPUs, by `stack_shape`; for `auto`.
        """
        asked = resources.pack
        self._most = 1 if asked in (AUTO, OFF) else int(asked)
        self._sizes: dict[Hashable | None, int] = dict(measured or {}) if asked == AUTO else {}
        self._alone: set[str] = set()  # keys
        self._shapes: dict[str, Hashable | None] = {}  # by key

    def size(self, trial: TrialConfig) -> int:
        """How many trials a pack with this one may have."""
        if self._most == 1 and not self._sizes:
            return 1
        shape = self._shape(trial)
        if shape is None or trial.key in self._alone:
            return 1
        return self._sizes.get(shape, self._most)

    def formed(self, trials: Iterable[TrialConfig]) -> Counter[int]:
        """The packs that trials make: how many of each size, those that train alone included."""
        packs: Counter[int] = Counter()
        alike: Counter[tuple[Hashable, int]] = Counter()
        for trial in trials:
            size = self.size(trial)
            alike[self._shape(trial) if size > 1 else None, size] += 1
        for (_, size), count in alike.items():
            packs[size] += count // size
            packs[count % size] += 1 if count % size else 0
        return +packs

    def of(self, trials: Iterable[TrialConfig]) -> int:
        """How many packs trials make, those that train alone included."""
        return self.formed(trials).total()

    def largest(self, trials: Iterable[TrialConfig]) -> int:
        """The most trials that a pack of some of these has."""
        return max(self.formed(trials))

    def in_words(self, trials: Iterable[TrialConfig]) -> str:
        """What packs trials make, if any of them has more than one."""
        packs = self.formed(trials)
        alone = packs.pop(1, 0)
        said = ", ".join(f"{count} of {size} trials" for size, count in sorted(packs.items()))
        return f"{said}; {alone} trials alone" if said and alone else said

    def are_one(self, first: TrialConfig, other: TrialConfig) -> bool:
        """Whether two trials, of which the first may be in a pack, may be in the same."""
        return other.key not in self._alone and self._shape(first) == self._shape(other)

    def split(self, trials: Iterable[TrialConfig], why: str) -> str:
        """Let trials that were a pack be so no more.

        Args:
            trials: that were together.
            why: "memory", "shape" or "deaths", as `trainables.worker.worker.Worker` says.

        Returns:
            What becomes of them, in words.
        """
        trials = list(trials)
        shape = self._shape(trials[0])
        if why == "deaths":
            self._alone |= {trial.key for trial in trials}
            return f"its pack of {len(trials)} lost its workers, goes on alone"
        self._sizes[shape] = size = max(1, len(trials) // 2) if why == "memory" else 1
        if why == "memory":
            return f"its pack of {len(trials)} did not fit into memory, goes on in one of {size}"
        return f"cannot train in a pack of {len(trials)}, goes on alone"

    def _shape(self, trial: TrialConfig) -> Hashable | None:
        if trial.key not in self._shapes:
            self._shapes[trial.key] = stack_shape(trial)
        return self._shapes[trial.key]


def settle_packs(
    plan: Plan,
    resources: Resources,
    trials: int,
    at_once: int,
    measure: Callable[[int], Mapping[Hashable, int]],
) -> Packs:
    """The packs of a sweep; with `auto`, on a GPU, of the sizes that are found to pay.

    Args:
        plan: of the sweep.
        resources: with a number of GPUs.
        trials: that are to be trained.
        at_once: packs that fit.
        measure: gives the size that pays by `stack_shape`, of packs of so many trials at most.
    """
    if not (resources.gpus and resources.pack == AUTO):
        return Packs(resources)
    return Packs(resources, measure(_most_in_a_pack(plan, trials, at_once)))


def _most_in_a_pack(plan: Plan, trials: int, at_once: int) -> int:
    """A tenth of what a study may suggest, which learns nothing between trials of a pack; without
    a search so many that each place has something to do."""
    if plan.studies:
        return len(plan.sweep.seeds) * max(1, (plan.share or SUGGESTIONS) // ROUNDS)
    return math.ceil(trials / at_once)
