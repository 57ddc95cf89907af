"""What each fuzzed input must keep to: only the user's error comes out, in time and in memory.

A fuzz test is two lines, and runs twice: quickly with the same inputs every time, and for minutes
with new ones (marked `slow`)::

    @guard.efforts
    def test_a_yaml_text(effort: settings) -> None:
        guard.fuzz(effort, texts(), parse_yaml, UserError)
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

SECONDS = 2.0  # of the processor, so other work on the machine does not count
MEMORY_BYTES = 500 << 20
ADDRESSES_BYTES = 1 << 30  # more of them end the call, before the machine suffers

Input = TypeVar("Input")

any_size = settings(
    database=None,
    deadline=None,  # `only` measures
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
quick = settings(any_size, derandomize=True, max_examples=200)
thorough = settings(any_size, max_examples=20_000)

efforts = pytest.mark.parametrize(
    "effort",
    [
        pytest.param(quick, id="quick"),
        pytest.param(thorough, id="thorough", marks=pytest.mark.slow),
    ],
)


def fuzz(
    effort: settings,
    inputs: SearchStrategy[Input],
    call: Callable[[Input], object],
    error_type: type[Exception],
) -> None:
    """Give many inputs to a call, each by itself under `only`."""

    @effort
    @given(inputs)
    def check(given_input: Input) -> None:
        only(error_type, lambda: call(given_input))

    check()


def only(error_type: type[Exception], call: Callable[[], object]) -> None:
    """Make a call that may raise this error alone, within 2 s and 500 MB of additional memory."""
    with suppress(OSError):  # where the system does not let us, it is the whole process's peak
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is used now
    before_bytes = _peak_bytes()
    try:
        with _time_limit(), _address_limit():
            call()
    except error_type:
        pass
    except Exception as error:
        pytest.fail(f"{type(error).__name__} instead of {error_type.__name__}: {error!s:.500}")
    grown_bytes = _peak_bytes() - before_bytes
    if grown_bytes > MEMORY_BYTES:
        pytest.fail(f"took {grown_bytes >> 20} MiB of memory")


@contextmanager
def _time_limit() -> Iterator[None]:
    """Fail after 2 s; what cannot be interrupted in C fails when it returns."""

    def fail(number: int, frame: Any) -> None:
        pytest.fail(f"took more than {SECONDS:g} s")

    handler = signal.signal(signal.SIGPROF, fail)  # pytest-timeout has SIGALRM
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


@contextmanager
def _address_limit() -> Iterator[None]:
    """MemoryError for what takes far more than is allowed."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + ADDRESSES_BYTES
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
