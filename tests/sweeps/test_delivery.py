"""The thread between the outbox and the tracking store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.records import SweepRecord, TrialRecord
from sweeps.tracking.delivery import Delivery
from sweeps.tracking.experiment import RefusedError
from sweeps.tracking.sweep_runs import SweepRuns

KEYS = ("a", "b", "c")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """Of a sweep that ended with three trials finished, and nothing is sent."""
    with closing(Outbox(tmp_path / "outbox.db", "study")) as outbox:
        outbox.describe({}, {key: {"name": key} for key in KEYS})
        for key in KEYS:
            outbox.record(TrialEvent(key, "started"))
            outbox.record(TrialEvent(key, "finished"))
        outbox.end("FINISHED")
        yield outbox


class Store:
    """Takes what it is sent; `refuse` names what it does not take."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.taken: list[str] = []
        self.refuse: Callable[[str], bool] = lambda key: False
        self.tries = 0

    def connect(self) -> SweepRuns:
        self.tries += 1
        return cast(SweepRuns, self)

    def send_trial(self, record: TrialRecord) -> None:
        if self.refuse(record.key):
            raise OSError(f"{record.key} is refused")
        self.taken.append(record.key)
        self.outbox.sent(record, f"run of {record.key}")

    def send_sweep(self, record: SweepRecord) -> None:
        if self.refuse("sweep"):
            raise OSError("the sweep is refused")
        self.taken.append("sweep")
        self.outbox.sweep_sent(record.revision)


@pytest.fixture
def store(outbox: Outbox) -> Store:
    return Store(outbox)


def deliver(outbox: Outbox, connect: Callable[[], SweepRuns]) -> Any:
    return closing(Delivery(outbox, connect))


def test_all_is_sent_and_the_sweep_comes_last(outbox: Outbox, store: Store) -> None:
    with deliver(outbox, store.connect) as delivery:
        assert delivery.flush() == 0
        assert store.taken == [*KEYS, "sweep"]
        outbox.record(TrialEvent("b", "failed", reason="later"))
        assert delivery.flush() == 0
    assert store.taken == [*KEYS, "sweep", "b"]


def test_what_a_sweep_plans_is_sent_before_its_trials_and_before_any_is_trained(
    outbox: Outbox, store: Store
) -> None:
    outbox.describe({}, {key: {"name": key} for key in KEYS})
    with deliver(outbox, store.connect) as delivery:
        delivery.wait_until_tried(10)  # as a sweep does before it trains
        assert store.taken[:1] == ["sweep"]
        assert delivery.flush() == 0
        outbox.end("FINISHED")
        assert delivery.flush() == 0
    assert store.taken == ["sweep", *KEYS, "sweep"]


def test_a_plan_that_is_refused_holds_up_no_trial_and_is_sent_later(
    outbox: Outbox, store: Store
) -> None:
    outbox.describe({}, {key: {"name": key} for key in KEYS})
    store.refuse = lambda key: key == "sweep"
    with deliver(outbox, store.connect) as delivery:
        delivery.wait_until_tried(10)
        assert delivery.flush(wait_s=2) == 1
        assert store.taken == list(KEYS)
        assert delivery.problem == "the sweep is refused"
        store.refuse = lambda key: False
        assert delivery.flush() == 0
    assert store.taken == [*KEYS, "sweep"]


def test_a_run_that_is_refused_holds_up_no_other(outbox: Outbox, store: Store) -> None:
    store.refuse = lambda key: key == "b"
    with deliver(outbox, store.connect) as delivery:
        assert delivery.flush(wait_s=2) == 2  # the run, and the sweep that waits for it
        assert store.taken == ["a", "c"]
        assert delivery.problem == "b is refused"
        store.refuse = lambda key: False
        assert delivery.flush() == 0
        assert delivery.problem == ""
    assert store.taken == ["a", "c", "b", "sweep"]


def test_a_store_that_is_away_gets_all_when_it_is_back(outbox: Outbox, store: Store) -> None:
    def connect() -> SweepRuns:
        if store.connect() and store.tries < 3:
            raise ConnectionRefusedError(111, "Connection refused")
        return cast(SweepRuns, store)

    with deliver(outbox, connect) as delivery:
        delivery.wait_until_tried(10)
        assert delivery.problem == "Connection refused"
        while store.tries < 3:
            delivery.flush(wait_s=0.2)
        assert delivery.flush() == 0
    assert store.taken == [*KEYS, "sweep"]


def test_a_store_that_will_never_take_the_sweep_is_said_at_once(outbox: Outbox) -> None:
    def connect() -> SweepRuns:
        raise RefusedError("the experiment is deleted")

    with (
        deliver(outbox, connect) as delivery,
        pytest.raises(RefusedError, match="the experiment is deleted"),
    ):
        delivery.wait_until_tried(10)


def test_a_store_that_hangs_does_not_hold_up_the_end(outbox: Outbox, store: Store) -> None:
    asked, released, answered = (threading.Event() for _ in range(3))

    def hang(key: str) -> bool:
        asked.set()
        released.wait(30)
        answered.set()
        return True

    store.refuse = hang
    delivery = Delivery(outbox, store.connect)
    assert asked.wait(10)
    assert delivery.flush(wait_s=0) == 4
    delivery.close()
    assert not answered.is_set()  # it came back before the store did
    released.set()


@pytest.mark.parametrize(("slow_s", "left"), [(10.0, 0), (0.2, 4)])
def test_a_store_that_is_slow_gets_more_time_than_one_that_refuses(
    slow_s: float, left: int, outbox: Outbox, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.delivery.NO_PROGRESS_S", 0.1)
    monkeypatch.setattr("sweeps.tracking.delivery.SLOW_S", slow_s)
    released = threading.Event()
    store.refuse = lambda key: not released.wait(1.0)
    threading.Timer(0.8, released.set).start()
    with deliver(outbox, store.connect) as delivery:
        assert delivery.flush() == left
        assert bool(delivery.problem) == (left > 0)


def test_what_the_thread_was_told_before_it_connected_is_not_lost(
    outbox: Outbox, store: Store
) -> None:
    may_connect = threading.Event()

    def connect() -> SweepRuns:
        may_connect.wait(10)
        return store.connect()

    with deliver(outbox, connect) as delivery:
        delivery.wait_until_tried(0)
        assert "no answer" in delivery.problem
        outbox.record(TrialEvent("a", "failed", reason="early"))
        delivery.on_event(TrialEvent("a", "failed"))
        may_connect.set()
        assert delivery.flush() == 0
    assert store.taken == [*KEYS, "sweep"]
