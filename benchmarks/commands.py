"""Runs commands as a user does, and measures their time and memory."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import signal
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
SAMPLE_EVERY_S = 0.5
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
OTHER_SERVICES = {"MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SWEEPS_STORAGE_URI"}  # not measured here


@dataclass(frozen=True)
class CommandResult:
    """The time and memory that a command took, and its standard output."""

    started_s: float  # time.time()
    wall_s: float
    output: str
    own_mib: float  # peak resident memory of the process itself (VmHWM)
    all_mib: float  # peak of it and its descendants; shared pages count in each
    gpu_busy: float | None = None  # percent, all processes counted; None if unknown


def run_command(*command: str, cwd: Path = ROOT, within_s: float = math.inf) -> CommandResult:
    """Run a command to its end, and sample its memory meanwhile.

    Args:
        command: with its arguments.
        cwd: where it is started.
        within_s: seconds after which it and all its descendants are killed.

    Raises:
        RuntimeError: the command failed; the message has the end of its output.
        TimeoutError: it had not ended in time.
    """
    own_kib = all_kib = 0
    busy: list[float] = []
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SERVICES}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started_s, started = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, stdout=output, stderr=errors, env=environment | QUIET
        )
        while process.poll() is None:
            own_kib = max(own_kib, _kib(process.pid, "VmHWM"))
            family = [process.pid, *(pid for pid, _ in descendants(process.pid))]
            all_kib = max(all_kib, sum(_kib(pid, "VmRSS") for pid in family))
            if (percent := gpu_busy()) is not None:
                busy.append(percent)
            if time.perf_counter() - started > within_s:
                for pid in family[::-1]:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
                raise TimeoutError(f"not ended after {within_s:.0f} s: {shlex.join(command)}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_EVERY_S)
        wall_s = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command} failed: {(output.read() + errors.read())[-2_000:]}")
        mean = statistics.fmean(busy) if busy else None
        return CommandResult(started_s, wall_s, output.read(), own_kib / 1024, all_kib / 1024, mean)


def _kib(pid: int, name: str) -> int:
    """Return a value from the status of a process, in KiB; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE):
            return int(found[1])
    return 0
