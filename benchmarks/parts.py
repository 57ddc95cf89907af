"""Measures where the time of a worker goes: set-up, steps, evaluation, checkpoints and the rest."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any  # arguments and results pass through

from trainables.persistence import artifacts
from trainables.training.loop import TrainingState
from trainables.training.stack import Stack
from trainables.worker import durable

SET_UP, STEPS, EVALUATION = "set-up", "steps", "evaluation"
CHECKPOINTS, ARTIFACTS, SAMPLES, OTHER = "checkpoints", "artifacts", "samples", "other"
PARTS = (SET_UP, STEPS, EVALUATION, CHECKPOINTS, ARTIFACTS, SAMPLES, OTHER)
FUNCTIONS = (  # with the modules that call them
    (durable, "save_checkpoint", CHECKPOINTS),
    (durable, "write_artifacts", ARTIFACTS),
    (artifacts, "sample_texts", SAMPLES),
    (Stack, "__init__", SET_UP),
)


class Stopwatch:
    """Seconds of each part; those of a part that runs inside of another count for it alone."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context manager: count what its body takes for a part."""
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def move(self, seconds: float, source: str, target: str) -> None:
        """Count seconds of one part for another."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def take(self) -> dict[str, float]:
        """Return the seconds of each part since the last call."""
        taken = {name: self._seconds[name] for name in PARTS}
        self._seconds.clear()
        return taken

    def _count(self) -> None:
        """Count the seconds since the last change for the innermost part."""
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now


def watch_worker() -> Stopwatch:
    """Return a stopwatch of what the workers of this process do from now on."""
    watch = Stopwatch()
    for owner, name, part in FUNCTIONS:
        setattr(owner, name, _timed(watch, part, getattr(owner, name)))
    for owner, name, states_of in (
        (Stack, "advance", _states_of_stack),
        (durable, "advance", lambda state: [state]),
    ):
        setattr(owner, name, _split(watch, states_of, getattr(owner, name)))
    return watch


def _timed(watch: Stopwatch, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose time counts for a part."""

    @functools.wraps(function)
    def timed(*arguments: object) -> object:
        with watch.part(part):
            return function(*arguments)

    return timed


def _split(
    watch: Stopwatch,
    states_of: Callable[[Any], list[TrainingState]],
    advance: Callable[..., Any],
) -> Callable[..., Any]:
    """Return a function that trains, whose time counts for steps and for evaluation.

    Args:
        watch: counts.
        states_of: returns the states that the first argument of `advance` trains.
        advance: trains to the next evaluation.
    """

    @functools.wraps(advance)
    def split(trained: object, *arguments: object) -> object:
        states = states_of(trained)
        before_s = sum(state.training_s for state in states)
        with watch.part(EVALUATION):
            result = advance(trained, *arguments)
        steps_s = sum(state.training_s for state in states) - before_s
        watch.move(steps_s, EVALUATION, STEPS)
        return result

    return split


def _states_of_stack(stack: Stack) -> list[TrainingState]:
    return [member.state for member in stack.members]
