"""Commands as a user gives them, with the time and the memory that they take."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import gpu_busy
from tests.processes import descendants

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
SWEEPS = str(Path(sys.executable).parent / "sweeps")
LOOK_EVERY_S = 0.5
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
ELSEWHERE = {"MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SWEEPS_STORAGE_URI"}  # not measured here


@dataclass(frozen=True)
class Ran:
    """What a command took, and what it said on its standard output."""

    started_s: float  # time.time()
    wall_s: float
    said: str
    own_mib: float  # the most that the process itself had resident (VmHWM)
    all_mib: float  # it and its descendants at a moment, pages that they share counted in each
    gpu_busy: float | None = None  # percent of the time, with all that ran on the GPU, if known


def run_command(*command: str, cwd: Path = ROOT) -> Ran:
    """Run it to its end, with a look at its memory now and then.

    Raises:
        RuntimeError: it failed; the message is the end of what it said.
    """
    own_kib = all_kib = 0
    busy: list[float] = []
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        started_s, started = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, stdout=said, stderr=errors, env=environment | QUIET
        )
        while process.poll() is None:
            own_kib = max(own_kib, _kib(process.pid, "VmHWM"))
            family = [process.pid, *(pid for pid, _ in descendants(process.pid))]
            all_kib = max(all_kib, sum(_kib(pid, "VmRSS") for pid in family))
            if (percent := gpu_busy()) is not None:
                busy.append(percent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_EVERY_S)
        wall_s = time.perf_counter() - started
        said.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command} failed: {(said.read() + errors.read())[-2_000:]}")
        mean = statistics.fmean(busy) if busy else None
        return Ran(started_s, wall_s, said.read(), own_kib / 1024, all_kib / 1024, mean)


def _kib(pid: int, name: str) -> int:
    """A line of the status of a process; 0 of one that has ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE):
            return int(found[1])
    return 0
