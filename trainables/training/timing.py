"""Timing of calls, and the hardware that they run on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

BUDGET_S = 0.4  # of repeated calls, within these limits:
LEAST_REPEATS = 3
MOST_REPEATS = 500


@dataclass(frozen=True)
class Timing:
    """Seconds of equal calls in a row; as text, the median with the quartiles."""

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return f"{format_seconds(self.median_s)} ({format_seconds(low)} to {format_seconds(high)})"


def timed(call: Callable[[], object], device: torch.device) -> Timing:
    """Time repeated calls after a first one that is not timed, each until the device is idle."""
    call()
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or (sum(seconds) < BUDGET_S and len(seconds) < MOST_REPEATS):
        _wait_for(device)
        started = time.perf_counter()
        call()
        _wait_for(device)
        seconds.append(time.perf_counter() - started)
    return Timing(tuple(seconds))


def devices() -> list[torch.device]:
    """Return the CPU, and the GPU if PyTorch finds one."""
    return [torch.device(kind) for kind in ("cpu", "cuda") if kind == "cpu" or _has_gpu()]


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or the name of the CPU with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def load_in_words() -> str:
    """Return the load of this machine in the last minute, in words."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return f"{os.getloadavg()[0]:.1f} processes on average in the minute before"


@contextmanager
def one_thread() -> Iterator[None]:
    """Context manager: let PyTorch use one thread, as trials of a sweep do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def format_seconds(seconds: float) -> str:
    """Format seconds with three digits, in s, ms, µs or ns."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _has_gpu() -> bool:
    return torch.cuda.is_available()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
