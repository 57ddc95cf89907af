"""The first signal stops a sweep gently, the second one at once."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from sweeps import stopping
from sweeps.stopping import EXIT_S, FORCE_S, STOP_S, Stop, gently, interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANDLED = (*SIGNALS, signal.SIGALRM)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in HANDLED]


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Handlers that can be told apart, and that no test leaves behind."""

    def own(number: signal.Signals) -> Callable[..., None]:
        return lambda *_: pytest.fail(f"{number.name} came through")

    timer = signal.setitimer(signal.ITIMER_REAL, 0)  # of pytest-timeout
    before = {number: signal.signal(number, own(number)) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes when ``now_s`` is set."""
    clock = SimpleNamespace(now_s=1_000.0)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(stopping, "time", clock)
    return clock


def send(*numbers: signal.Signals) -> int:
    """Send these signals to this process.

    Returns:
        How many of them did not end what it does.
    """
    for count, number in enumerate(numbers):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            return count
    return len(numbers)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_requests_and_the_second_one_forces(
    first: signal.Signals, second: signal.Signals, stop: Stop
) -> None:
    with gently(stop):
        assert send(first) == 1
        assert (stop.cause, stop.is_forced) == ("interrupted", False)
        assert send(second) == 0
        assert (stop.cause, stop.is_forced) == ("interrupted", True)


def test_what_takes_too_long_after_a_signal_is_ended(
    stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "FORCE_S", 0.01)

    def work() -> None:
        with gently(stop):
            send(signal.SIGINT)
            time.sleep(20)  # is cut short

    with pytest.raises(KeyboardInterrupt):
        work()
    assert (stop.cause, stop.is_forced) == ("interrupted", False)  # by the clock


def test_time_runs_from_the_first_signal_on(stop: Stop) -> None:
    with gently(stop):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        stop.request("failed")
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        assert send(signal.SIGTERM) == 1
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= FORCE_S
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("signals", [(), (signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)])
def test_handlers_are_those_from_before_in_the_end(
    signals: tuple[signal.Signals, ...], stop: Stop
) -> None:
    before = handlers()
    with gently(stop):
        assert not set(handlers()) & set(before)
        send(*signals)
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_handlers_are_those_from_before_after_an_error(stop: Stop) -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError), gently(stop):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError
    assert handlers() == before


def test_outside_a_sigterm_is_a_ctrl_c() -> None:
    before = handlers()
    with interruptible():
        assert send(signal.SIGTERM) == 0
    assert handlers() == before


def test_the_gentle_handlers_give_way_to_those_around_them(stop: Stop) -> None:
    with interruptible():
        with gently(stop):
            assert send(signal.SIGTERM) == 1
        assert send(signal.SIGTERM) == 0
    assert stop.cause == "interrupted"


def test_there_is_patience_until_an_interrupt_and_then_less_and_less(
    stop: Stop, clock: SimpleNamespace
) -> None:
    assert stop.patience_s == math.inf
    stop.request("failed")
    assert stop.patience_s == math.inf
    stop.interrupt()
    for passed_s in (0.0, 1.0, FORCE_S):
        clock.now_s = 1_000 + passed_s
        assert stop.patience_s == STOP_S - EXIT_S - passed_s
    for passed_s in (STOP_S - EXIT_S, STOP_S, 1e6):
        clock.now_s = 1_000 + passed_s
        assert stop.patience_s == 0


def test_what_is_ended_by_force_leaves_time_for_the_rest() -> None:
    assert FORCE_S + EXIT_S < STOP_S


def test_the_first_cause_counts(stop: Stop) -> None:
    assert (stop.cause, stop.message) == ("", "")
    stop.request("storage", "the disk is full")
    stop.request("failed", "a trial failed")
    stop.interrupt()
    assert (stop.cause, stop.message) == ("storage", "the disk is full")


def test_a_signal_after_another_cause_is_the_first_signal(stop: Stop) -> None:
    with gently(stop):
        stop.request("failed", "a trial failed")
        assert send(signal.SIGINT, signal.SIGINT) == 1
        assert stop.patience_s < STOP_S
    assert (stop.cause, stop.message) == ("failed", "a trial failed")
