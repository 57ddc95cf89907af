"""The first signal stops a sweep gently, a later one at once, and nothing outlives the deadline."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sweeps.process import signals, stopping
from sweeps.process.stopping import DEADLINE_S, EXIT_S, FORCE_S, NEVER, SAME_S, STOP_S, Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes when ``now_s`` is set."""
    clock = SimpleNamespace(now_s=1_000.0, sleep=lambda s: None)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(stopping, "time", clock)
    return clock


@pytest.fixture
def stop(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Stop:
    """One that enforces nothing, and whose end of the process is an exception."""

    def end_process(message: str = "", save: object = None) -> None:
        raise EndedError(message)

    monkeypatch.setattr(signals, "end_process", end_process)
    monkeypatch.setattr(Stop, "_enforce", lambda stop: None)
    return Stop()


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_a_later_one_ends_the_process(
    first: signal.Signals, second: signal.Signals, stop: Stop, clock: SimpleNamespace
) -> None:
    stop.on_signal(first)
    assert (stop.cause, stop.is_interrupted) == ("interrupted", True)
    clock.now_s += SAME_S + 0.1
    with pytest.raises(EndedError, match="at once"):
        stop.on_signal(second)


@pytest.mark.parametrize("second", SIGNALS)
def test_a_signal_that_is_sent_twice_is_one(
    second: signal.Signals, stop: Stop, clock: SimpleNamespace
) -> None:
    """`timeout` signals its child, and then the group that the child is in."""
    stop.on_signal(signal.SIGTERM)
    clock.now_s += SAME_S / 2
    stop.on_signal(second)


def test_a_terminal_that_closes_later_is_not_impatient(stop: Stop, clock: SimpleNamespace) -> None:
    stop.on_signal(signal.SIGTERM)
    clock.now_s += 10 * SAME_S
    stop.on_signal(signal.SIGHUP)


def test_the_main_thread_is_cut_when_it_said_and_only_then(
    stop: Stop, clock: SimpleNamespace
) -> None:
    stop.may_cut(FORCE_S)
    stop.on_cut()  # there was no signal
    stop.interrupt()
    clock.now_s += FORCE_S - 0.1
    stop.on_cut()
    assert not stop.is_cut
    clock.now_s += 0.1
    with pytest.raises(KeyboardInterrupt):
        stop.on_cut()
    assert stop.is_cut
    with pytest.raises(KeyboardInterrupt):  # the first one may have been swallowed
        stop.on_cut()
    stop.may_cut(NEVER)
    stop.on_cut()  # it came out


def test_what_may_be_cut_at_once_does_not_begin_after_a_signal(stop: Stop) -> None:
    stop.interrupt()
    stop.may_cut(NEVER)
    with pytest.raises(KeyboardInterrupt):
        stop.may_cut(0)


def test_a_cut_that_an_import_changed_is_an_interrupt(stop: Stop, clock: SimpleNamespace) -> None:
    def fails_as_numpy_does() -> None:
        try:
            stop.on_cut()
        except KeyboardInterrupt:
            raise ImportError("the C-extensions failed") from None

    with pytest.raises(ZeroDivisionError), stop.cut_is_interrupt():
        raise ZeroDivisionError
    stop.may_cut(1.0)
    stop.interrupt()
    clock.now_s += 2.0
    with pytest.raises(KeyboardInterrupt), stop.cut_is_interrupt():
        fails_as_numpy_does()


def test_a_cluster_that_is_lost_is_waited_for_no_longer(stop: Stop) -> None:
    stop.may_cut(FORCE_S)
    stop.interrupt("lost", "Ray's process raylet died")
    with pytest.raises(KeyboardInterrupt):
        stop.on_cut()
    assert (stop.cause, stop.message) == ("lost", "Ray's process raylet died")
    stop.may_cut(NEVER)
    stop.on_cut()


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


def test_each_step_of_the_end_leaves_time_for_the_next() -> None:
    assert FORCE_S < STOP_S - EXIT_S < DEADLINE_S
    assert DEADLINE_S + signals.LAST_S < STOP_S


def test_the_first_cause_counts(stop: Stop) -> None:
    assert (stop.cause, stop.message) == ("", "")
    stop.request("storage", "the disk is full")
    stop.request("failed", "a trial failed")
    stop.interrupt()
    assert (stop.cause, stop.message) == ("storage", "the disk is full")


# Processes: what a signal does to a whole one.

PRELUDE = """
import ctypes, os, signal, sys, threading, time
from sweeps.process import signals, stopping
from sweeps.process.stopping import NEVER, Stop, interruptible
signals.watch("again")
def ready(): print("ready", flush=True)
"""
STUCK = """
lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
lock(mutex)
ready()
lock(mutex)  # waits for ever, in C, where Python runs no handler
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def ended(
    processes: list[subprocess.Popen[str]],
    code: str,
    *sent: signal.Signals,
    prelude: str = PRELUDE,
) -> tuple[int, str, float]:
    """Start Python, signal it when it says so; its exit code, output and seconds until its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", prelude + code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    processes.append(process)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    started_s = time.monotonic()
    for number in sent:
        process.send_signal(number)
        time.sleep(0.3)
    output = process.stdout.read()
    return process.wait(60), output, time.monotonic() - started_s


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("code", [STUCK, "ready(); time.sleep(60)", "ready()\nwhile True: pass"])
def test_a_process_with_nothing_to_save_ends_at_once(
    number: signal.Signals, code: str, processes: list[subprocess.Popen[str]]
) -> None:
    exit_code, output, took_s = ended(processes, code, number)
    assert (exit_code, output) == (130, "interrupted\nagain\n")
    assert took_s < 15


def test_an_ignored_hangup_stays_ignored(processes: list[subprocess.Popen[str]]) -> None:
    """`nohup sweeps run ...` goes on when its terminal closes."""
    code = "ready(); time.sleep(1); print('went on')"
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + PRELUDE
    assert ended(processes, code, signal.SIGHUP, prelude=nohup)[:2] == (0, "went on\n")


def test_a_stuck_main_thread_is_ended_at_the_deadline(
    processes: list[subprocess.Popen[str]],
) -> None:
    code = """
stopping.DEADLINE_S = 1.0
stop = Stop()
stop.at_deadline = lambda: print("saved")
with signals.received_by(stop):
    exec(stuck)
"""
    code = f"stuck = {STUCK!r}\n{code}"
    exit_code, output, took_s = ended(processes, code, signal.SIGTERM)
    assert exit_code == 130
    assert output == "saved\nstopped by force; what is saved goes on\nagain\n"
    assert took_s < 15


@pytest.mark.parametrize("number", SIGNALS)
def test_what_cleans_up_is_interrupted_and_ends_itself(
    number: signal.Signals, processes: list[subprocess.Popen[str]]
) -> None:
    code = """
try:
    with interruptible():
        ready()
        time.sleep(60)
except KeyboardInterrupt:
    print("cleaned up")
    signals.exit_now(130)
"""
    assert ended(processes, code, number)[:2] == (130, "cleaned up\n")


def test_a_cut_that_a_finalizer_swallows_comes_again(
    processes: list[subprocess.Popen[str]],
) -> None:
    code = """
stopping.CUT_AGAIN_S = 0.1

class Waits:
    def __del__(self):
        ready()
        time.sleep(60)

try:
    with interruptible():
        it = Waits()
        del it
        time.sleep(60)
except KeyboardInterrupt:
    print("came out")
    signals.exit_now(130)
"""
    assert ended(processes, code, signal.SIGTERM)[:2] == (130, "came out\n")


def test_a_handler_that_a_library_installs_changes_nothing(
    processes: list[subprocess.Popen[str]],
) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    assert ended(processes, code + STUCK, signal.SIGTERM)[:2] == (130, "interrupted\nagain\n")


def test_a_process_that_it_starts_outlives_a_signal_to_its_group(
    processes: list[subprocess.Popen[str]],
) -> None:
    code = """
import subprocess
child = subprocess.Popen(["sleep", "60"])
with signals.unblocked():
    other = subprocess.Popen(["sleep", "60"])
def look():
    other.wait(10)
    print("other", other.returncode, "child", child.poll())
    child.kill()
signals.before_exit(look)
ready()
os.killpg(0, signal.SIGTERM)
time.sleep(60)
"""
    exit_code, output, _ = ended(processes, code)
    assert (exit_code, output) == (130, "interrupted\nagain\nother -15 child None\n")


def test_a_reader_that_does_not_read_holds_nothing_up(
    processes: list[subprocess.Popen[str]],
) -> None:
    code = "ready()\nwhile True: print('x' * 1000)"  # until the pipe is full
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code], stdout=subprocess.PIPE, text=True
    )
    processes.append(process)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 130
