"""The guard notices what it is there for."""

from __future__ import annotations

import resource
import signal
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as some

from tests.fuzz import guard

failure = pytest.raises(pytest.fail.Exception)


def hang() -> None:
    while True:
        with suppress(Exception):
            sum(range(1000))


def refuse() -> None:
    raise ValueError("no")


def test_the_error_that_is_meant_passes_and_another_fails() -> None:
    guard.only(ValueError, refuse)
    guard.only(ValueError, lambda: None)
    with failure as failed:
        guard.only(ValueError, lambda: {}["missing"])
    assert "KeyError instead of ValueError: 'missing'" in str(failed.value)


def test_what_hangs_fails_even_if_it_catches_all_exceptions() -> None:
    with failure as failed:
        guard.only(ValueError, hang)
    assert "took more than 2 s" in str(failed.value)


def test_what_fills_memory_fails() -> None:
    with failure as failed:
        guard.only(ValueError, lambda: b"x" * (600 << 20))
    assert "MiB of memory" in str(failed.value)
    guard.only(ValueError, lambda: b"x" * (400 << 20))
    with failure as failed:
        guard.only(ValueError, lambda: b"x" * (8 << 30))
    assert "MemoryError" in str(failed.value)


def test_limits_and_handlers_are_put_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    guard.only(ValueError, refuse)
    after = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    assert after == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_an_input_that_breaks_is_found_and_shown() -> None:
    def call(number: int) -> None:
        if number > 1000:
            raise KeyError(number)

    with failure as failed:
        guard.fuzz(settings(guard.quick), some.integers(), call, ValueError)
    assert "KeyError instead of ValueError: 1001" in str(failed.value)
