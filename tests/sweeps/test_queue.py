"""The queue and its source: which trials wait, run, pause and stop."""

from __future__ import annotations

import math

import pytest

from sweeps.records.events import EndCause, TrialEvent
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue, TrialSource
from sweeps.spec.sweep_file import Resources
from tests.sweeps.searches import plan
from trainables.config import TrialConfig

GRID = """
name: grid
corpus: file:play.txt
training: {max_steps: 100, eval_every: 10, block_size: 4}
replicates: 4
arms: [{model: {variant: bigram}}]
"""


class Once(TrialSource):
    """Suggests some trials once."""

    def __init__(self, trials: list[TrialConfig]) -> None:
        self.trials = trials

    @property
    def is_suggesting(self) -> bool:
        return bool(self.trials)

    @property
    def is_over(self) -> bool:
        return not self.trials

    def suggest(self) -> list[TrialConfig]:
        trials, self.trials = self.trials, []
        return trials


@pytest.fixture(scope="module")
def trials() -> list[TrialConfig]:
    return list(plan(GRID).trials)


@pytest.fixture
def packs() -> Packs:
    return Packs(Resources())


def stopped(trial: TrialConfig) -> TrialEvent:
    return TrialEvent(trial.key, "stopped", reason="hopeless", cause=EndCause.PRUNED)


def test_a_source_is_asked_when_no_trial_waits(trials: list[TrialConfig], packs: Packs) -> None:
    queue = Queue(Once(trials[2:]))
    queue.put(trials[:2])
    assert queue.demand(packs) == math.inf
    assert [queue.next(packs) for _ in range(2)] == [[trials[0]], [trials[1]]]
    assert queue.waiting == []
    assert [queue.next(packs) for _ in range(3)] == [[trials[2]], [trials[3]], []]
    assert queue.demand(packs) == 4
    for trial in trials:
        assert not queue.is_over
        queue.on_event(TrialEvent(trial.key, "finished"))
    assert queue.is_over


def test_paused_trials_continue_before_those_that_wait(
    trials: list[TrialConfig], packs: Packs
) -> None:
    first, second, third, fourth = trials
    queue = Queue()
    queue.put(trials)
    for trial in (first, second):
        assert queue.next(packs) == [trial]
    queue.pause(first.key)
    queue.pause(second.key)
    event = queue.stop_event(first.key)
    assert event is not None
    assert event.kind == "paused"
    queue.on_event(event)
    assert queue.stop_event(first.key) is None
    assert queue.waiting == [third, fourth], "it waits for others"
    queue.resume([first, second])
    assert queue.waiting == [first, third, fourth]
    assert queue.stop_event(second.key) is None, "a running trial need not pause any more"
    assert list(queue.running) == [second.key]


def test_a_trial_is_stopped_where_it_is(trials: list[TrialConfig], packs: Packs) -> None:
    running, paused, waiting, other = trials
    queue = Queue()
    queue.put_paused([paused])
    queue.put([running, waiting, other])
    queue.next(packs)
    for trial, has_started in ((running, True), (paused, True), (waiting, False)):
        queue.stop(stopped(trial), has_started)
    event = queue.stop_event(running.key)
    assert event is not None
    assert (event.kind, event.cause) == ("stopped", EndCause.PRUNED)
    assert [event.key for event in queue.pending_events()] == [paused.key]
    assert queue.pending_events() == []
    queue.resume([paused, waiting])
    assert queue.waiting == [other]
