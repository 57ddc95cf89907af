"""How many packs of a sweep may run at once, while the limit changes. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable


class SlotLimit:
    """Counts the packs that run against a limit, and chooses those to preempt."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._packs: set[str] = set()  # that run, by the key of their first trial
        self._preempted: set[str] = set()  # of these

    @property
    def is_full(self) -> bool:
        """True if no other pack may start."""
        return len(self._packs) >= self._limit()

    def add(self, pack: str) -> None:
        """Count a pack that starts."""
        self._packs.add(pack)

    def must_stop(self, pack: str) -> bool:
        """Return whether a pack has to make room; once it has to, this stays true."""
        if len(self._packs) - len(self._preempted) > self._limit():
            self._preempted.add(pack)
        return self.is_preempted(pack)

    def is_preempted(self, pack: str) -> bool:
        """Return whether a pack was told to make room."""
        return pack in self._preempted

    def remove(self, pack: str) -> None:
        """Count a pack that stopped no longer."""
        self._packs.discard(pack)
        self._preempted.discard(pack)
