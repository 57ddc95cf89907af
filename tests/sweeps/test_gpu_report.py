"""What a machine reports of its GPUs."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch

from sweeps.resources.gpu_report import ASSUMED_BYTES, GpuReport, gpus_here
from tests.sweeps.fake_nvml import GIB, Gpu, has_gpus

THREE = [
    Gpu(80, "GPU-aa11", "NVIDIA H100"),
    Gpu(24, "GPU-ab22", "NVIDIA L4"),
    Gpu(10, "MIG-cc33", "NVIDIA A100 MIG 1g.10gb"),
]


def test_a_machine_without_a_gpu_reports_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for problem in ("NVML Shared Library Not Found", "Driver Not Loaded", ""):
        has_gpus(monkeypatch, [], is_usable=False, problem=problem)
        assert gpus_here() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus_here() is None


def test_this_machine_answers_whatever_it_has() -> None:
    report = gpus_here()
    if not torch.cuda.is_available():
        assert report is None or not report.free_bytes
    else:
        assert report is not None
        assert 0 < report.free_bytes <= torch.cuda.get_device_properties(0).total_memory


@pytest.mark.parametrize(
    ("visible", "name", "free_gib"),
    [
        (None, "NVIDIA H100", 10),  # the least of all
        ("0", "NVIDIA H100", 80),
        ("1", "NVIDIA L4", 24),
        ("0, 1", "NVIDIA H100", 24),
        ("GPU-ab", "NVIDIA L4", 24),  # shortened
        ("GPU-aa11,1", "NVIDIA H100", 24),
        ("MIG-cc33", "NVIDIA A100 MIG 1g.10gb", 10),
        ("0,-1,2", "NVIDIA H100", 80),  # CUDA takes those before the first that does not exist
        ("0,7,1", "NVIDIA H100", 80),
    ],
)
def test_only_visible_gpus_count(
    visible: str | None, name: str, free_gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_gpus(monkeypatch, THREE, visible=visible)
    assert gpus_here() == GpuReport(name, free_gib * GIB)


@pytest.mark.parametrize("visible", ["", "-1", "GPU-zz", "NoDevFiles"])
def test_hidden_gpus_are_none(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpus(monkeypatch, THREE, is_usable=False, visible=visible)
    assert gpus_here() is None


def test_a_gpu_that_torch_cannot_use_has_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpus(monkeypatch, THREE, is_usable=False, build=None)
    report = GpuReport("NVIDIA H100", 0, "this build of torch is for CPUs")
    assert gpus_here() == report

    def is_available() -> bool:
        warnings.warn("CUDA initialization: the driver is too old\nupdate it", stacklevel=1)
        return False

    has_gpus(monkeypatch, THREE, is_usable=False)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    report = GpuReport("NVIDIA H100", 0, "CUDA initialization: the driver is too old")
    assert gpus_here() == report


def test_a_driver_that_is_broken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpus(
        monkeypatch, [], is_usable=False, problem="RM has detected an NVML/RM version mismatch."
    )
    assert gpus_here() == GpuReport("", 0, "RM has detected an NVML/RM version mismatch.")


@pytest.mark.parametrize("build", ["12.8", None])
def test_where_nvml_does_not_answer_a_modest_memory_is_assumed(
    build: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with GPUs of AMD, for which torch is built without CUDA."""
    has_gpus(monkeypatch, [], problem="Driver Not Loaded", build=build)
    assert gpus_here() == GpuReport("", ASSUMED_BYTES, "Driver Not Loaded")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    report = gpus_here()
    assert report == GpuReport("", ASSUMED_BYTES, "nvidia-ml-py is not installed")
