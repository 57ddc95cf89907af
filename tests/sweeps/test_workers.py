"""Which trial gets a worker that has become free."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sweeps.execution.slots import SlotLimit
from sweeps.execution.tune_runner import Scheduler


def controller(pending: list[Any], starting: dict[Any, str]) -> Any:
    return SimpleNamespace(
        get_trials=lambda: pending,
        _trials_to_cache=set(),
        _pending_trials=set(pending),
        _pending_trials_list=pending,
        _trial_to_actor=starting,
    )


class Waiting:
    status = "PENDING"


def test_a_free_worker_goes_to_a_trial_for_which_none_starts() -> None:
    scheduler = Scheduler(SlotLimit(lambda: 3))
    first, second, third = Waiting(), Waiting(), Waiting()
    waiting = [first, second, third]
    assert scheduler.choose_trial_to_run(controller(waiting, {})) is first
    assert scheduler.choose_trial_to_run(controller(waiting, {first: "starts"})) is second
    both = {first: "starts", second: "starts"}
    assert scheduler.choose_trial_to_run(controller(waiting, both)) is third
    assert scheduler.choose_trial_to_run(controller([first], {first: "starts"})) is first
    assert scheduler.choose_trial_to_run(controller([], {})) is None
