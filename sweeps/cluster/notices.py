"""What Ray says of its machines while a sweep runs, in a line each."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping

import ray._private.worker

from analysis.text.terminal import in_a_line, try_to_say

RECENT_S = 120.0  # Ray takes up to some 80 s to know that a machine is dead
DEATH = re.compile(r"node with node id:.*?address: (?P<address>\S+).*marked dead", re.DOTALL)


class Places:
    """On which machines the packs of trials run, as far as they have reported."""

    def __init__(self) -> None:
        self._packs: dict[str, tuple[str, int]] = {}  # address and number of trials by pack
        self._lost: list[tuple[float, str, int]] = []  # when, and the same, of workers that died

    def add(self, pack: str, address: str, trials: int) -> None:
        """Note the address of the machine that a pack runs on, and the number of its trials."""
        self._packs[pack] = (address, trials)

    def discard(self, pack: str) -> None:
        """Forget a pack that has ended."""
        self._packs.pop(pack, None)

    def lose(self, pack: str) -> None:
        """Note that the worker of a pack died; Ray says so before it knows that the machine did."""
        if place := self._packs.pop(pack, None):
            self._lost.append((time.monotonic(), *place))

    def trials_at(self, address: str) -> int:
        """Return how many trials run on the machine with an address, or did until just now."""
        since_s = time.monotonic() - RECENT_S
        lost = [(where, trials) for when_s, where, trials in self._lost if when_s > since_s]
        return sum(trials for where, trials in [*self._packs.values(), *lost] if where == address)


@contextlib.contextmanager
def notices(places: Places) -> Iterator[None]:
    """Context manager: say in one line what Ray would print in several, and in colour."""

    def show(data: Mapping[str, object], ignore_prefix: bool) -> None:
        lines = data["lines"]
        assert isinstance(lines, list)
        for text in lines:
            try_to_say(in_a_line(_in_our_words(str(text), places)))

    before = ray._private.worker.print_to_stdstream  # which its thread calls; there is no option
    ray._private.worker.print_to_stdstream = show
    try:
        yield
    finally:
        ray._private.worker.print_to_stdstream = before


def _in_our_words(text: str, places: Places) -> str:
    death = DEATH.search(text)
    if death is None:
        return f"ray     {text.strip()}"
    address = death["address"].rstrip(",")
    trials = places.trials_at(address)
    fate = f", {trials} {'trial continues' if trials == 1 else 'trials continue'} elsewhere"
    return f"lost    machine {address} died{fate if trials else ''}"
