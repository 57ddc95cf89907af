"""Packs: trials of one shape that train together as one. Knows no Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from sweeps.spec.sweep_file import AUTO, OFF, Resources
from trainables.config import TrialConfig
from trainables.training.stack import stack_shape
from trainables.worker.reports import SplitCause


class Packs:
    """The largest number of trials of each shape that train in one pack, in this run of a sweep.

    A shape that ran out of memory gets half as many; trials that cannot be in a pack train alone.
    """

    def __init__(
        self, resources: Resources, auto: Callable[[TrialConfig], int] | None = None
    ) -> None:
        """Start with the sizes that the sweep file gives, or with those for `auto`.

        Args:
            resources: of the sweep.
            auto: for `auto`: the largest pack for a trial of its shape; None for no packs.
        """
        asked = resources.pack
        self._auto = auto if asked == AUTO else None
        self._most = 1 if asked in (AUTO, OFF) else int(asked)
        self._sizes: dict[Hashable, int] = {}
        self._alone: set[str] = set()  # keys
        self._shapes: dict[str, Hashable | None] = {}  # by key

    def size(self, trial: TrialConfig) -> int:
        """Return the largest number of trials that a pack with this trial may have."""
        if self._most == 1 and self._auto is None:
            return 1
        shape = self._shape(trial)
        if shape is None or trial.key in self._alone:
            return 1
        if shape not in self._sizes:
            self._sizes[shape] = self._auto(trial) if self._auto else self._most
        return self._sizes[shape]

    def by_size(self, trials: Iterable[TrialConfig]) -> Counter[int]:
        """Return how many packs of each size the trials make; a trial alone is a pack of one."""
        packs: Counter[int] = Counter()
        together: Counter[tuple[Hashable, int]] = Counter()
        for trial in trials:
            size = self.size(trial)
            together[self._shape(trial) if size > 1 else None, size] += 1
        for (_, size), count in together.items():
            packs[size] += count // size
            packs[count % size] += 1 if count % size else 0
        return +packs

    def count(self, trials: Iterable[TrialConfig]) -> int:
        """Return how many packs the trials make; a trial alone is a pack of one."""
        return self.by_size(trials).total()

    def largest(self, trials: Iterable[TrialConfig]) -> int:
        """Return the size of the largest pack that the trials make."""
        return max(self.by_size(trials))

    def in_words(self, trials: Iterable[TrialConfig]) -> str:
        """Describe the packs that the trials make; empty if all train alone."""
        packs = self.by_size(trials)
        alone = packs.pop(1, 0)
        text = ", ".join(f"{count} of {size} trials" for size, count in sorted(packs.items()))
        return f"{text}; {alone} trials alone" if text and alone else text

    def can_join(self, first: TrialConfig, other: TrialConfig) -> bool:
        """Return whether a trial can be in the pack of another, which can be in one."""
        return other.key not in self._alone and self._shape(first) == self._shape(other)

    def split(self, trials: Iterable[TrialConfig], cause: SplitCause) -> str:
        """Make smaller packs of trials that could not go on in their pack.

        Args:
            trials: of the pack.
            cause: as the worker reports it.

        Returns:
            What happened to each trial, and how it goes on, in words.
        """
        trials = list(trials)
        shape = self._shape(trials[0])
        assert shape is not None
        if cause is SplitCause.DEATHS:
            self._alone |= {trial.key for trial in trials}
            return f"its pack of {len(trials)} lost its workers, goes on alone"
        is_memory = cause is SplitCause.MEMORY
        self._sizes[shape] = size = max(1, len(trials) // 2) if is_memory else 1
        if is_memory:
            return f"its pack of {len(trials)} did not fit into memory, goes on in one of {size}"
        return f"cannot train in a pack of {len(trials)}, goes on alone"

    def _shape(self, trial: TrialConfig) -> Hashable | None:
        if trial.key not in self._shapes:
            self._shapes[trial.key] = stack_shape(trial)
        return self._shapes[trial.key]
