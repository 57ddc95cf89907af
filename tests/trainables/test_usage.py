"""What a trial takes of the machine, held against work of a known size."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from trainables.worker import usage
from trainables.worker.usage import Usage

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CPU_PERCENT = "process_cpu_utilization_percentage"
PEAK_MB = "process_peak_memory_megabytes"


def work(seconds: float) -> None:
    """Take so much time of a processor."""
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass


def test_a_processor_that_works_and_one_that_waits() -> None:
    usage = Usage(CPU)
    with usage.counted():
        time.sleep(0.2)
    assert usage.take()[CPU_PERCENT] < 40
    work(0.1)  # of somebody else
    took_s = 0.0
    for _ in range(2):
        with usage.counted():
            started_s = time.perf_counter()
            work(0.1)
            took_s += time.perf_counter() - started_s  # longer where others work as well
    assert usage.take()[CPU_PERCENT] > 80 * min(1, 0.2 / took_s)


def test_nothing_is_said_of_processors_where_nothing_was_counted() -> None:
    assert CPU_PERCENT not in Usage(CPU).take()


@pytest.mark.skipif(not usage.CLEAR.exists(), reason="not a Linux")
def test_the_peak_of_memory_is_that_of_the_trial() -> None:
    first = Usage(CPU)
    before = first.take()[PEAK_MB]
    content = bytearray(200_000_000)
    del content
    peaks = [first.take()[PEAK_MB] for _ in range(2)]
    assert min(peaks) > before + 190
    assert Usage(CPU).take()[PEAK_MB] < before + 100


def test_a_system_that_does_not_count_memory_anew_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "CLEAR", tmp_path / "absent" / "clear_refs")
    assert Usage(CPU).take() == {}


class Gpu:
    """Stands in for torch.cuda: there is none where the tests run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resets = 0
        self.busy = [40, 60]
        for name in ("reset_peak_memory_stats", "utilization"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123_000_000)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 456_000_000)

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        assert device == CUDA
        self.resets += 1

    def utilization(self, device: torch.device) -> int:
        if not self.busy:
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")
        return self.busy.pop(0)


def test_of_a_gpu_it_tells_the_peaks_of_the_trial_and_how_busy_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Gpu(monkeypatch)
    usage = Usage(CUDA)
    for _ in range(2):
        with usage.counted():
            pass
    first = usage.take()
    assert first["process_gpu_peak_allocated_megabytes"] == 123
    assert first["process_gpu_peak_reserved_megabytes"] == 456
    assert first["gpu_utilization_percentage"] == 50
    with usage.counted():  # now it does not tell
        pass
    assert usage.take().keys() == first.keys() - {"gpu_utilization_percentage"}
    assert gpu.resets == 1
