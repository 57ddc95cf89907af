"""CPU, memory and GPU use of a trial, measured in the process that trains it. Knows no Ray.

Names that begin with ``process`` are of this process, not of the machine.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): the peak is the present size
MEGABYTE = 1e6  # bytes, as in MLflow's own system metrics


class Usage:
    """The use since this object was made, which is before the model of the trial is."""

    def __init__(self, device: torch.device) -> None:
        """Reset the peaks, which earlier trials of the process may have set."""
        self._gpu = device if device.type == "cuda" else None
        self._knows_memory = _reset_peak_memory()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats(self._gpu)
        self._start_counting()

    def _start_counting(self) -> None:
        self._wall_s = self._cpu_s = 0.0
        self._gpu_percents: list[int] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Context manager: count the time and the GPU's utilization as the trial's."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        self._wall_s += time.perf_counter() - wall_s
        self._cpu_s += time.process_time() - cpu_s
        if self._gpu and (percent := _gpu_percent(self._gpu)) is not None:
            self._gpu_percents.append(percent)

    def take(self) -> dict[str, float]:
        """Return the values by name; averages are over the time counted since the call before.

        * ``process_cpu_utilization_percentage``: of one core, all threads together;
        * ``process_peak_memory_megabytes``: the highest resident memory since the trial started,
          with what the process held before, such as torch;
        * ``process_gpu_peak_allocated_megabytes``, ``..._reserved_megabytes``: the highest memory
          of tensors, and of torch's allocator, with what earlier trials left;
        * ``gpu_utilization_percentage``: the share of time in which the GPU was busy with any
          process, as NVIDIA's driver reports it.

        Values that this machine does not report are left out.
        """
        found: dict[str, float] = {}
        if self._wall_s:
            found["process_cpu_utilization_percentage"] = 100 * self._cpu_s / self._wall_s
        if self._knows_memory:
            found["process_peak_memory_megabytes"] = _peak_memory_bytes() / MEGABYTE
        if self._gpu:
            allocated = torch.cuda.max_memory_allocated(self._gpu)
            reserved = torch.cuda.max_memory_reserved(self._gpu)
            found["process_gpu_peak_allocated_megabytes"] = allocated / MEGABYTE
            found["process_gpu_peak_reserved_megabytes"] = reserved / MEGABYTE
        if self._gpu_percents:
            mean = sum(self._gpu_percents) / len(self._gpu_percents)
            found["gpu_utilization_percentage"] = mean
        self._start_counting()
        return {name: round(value, 1) for name, value in found.items()}


def _reset_peak_memory() -> bool:
    """Reset the peak; return whether the system can: Linux does, unless /proc is not writable."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _peak_memory_bytes() -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found, f"{STATUS} has no VmHWM"
    return int(found[1]) * 1024


def _gpu_percent(device: torch.device) -> int | None:
    try:
        return torch.cuda.utilization(device)
    except Exception:  # nvidia-ml-py is not installed, or the driver does not report it (MIG)
        return None
