"""A machine with GPUs, for tests: NVML and torch as `sweeps.resources.gpu_report` asks them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

GIB = 2**30


class Gpu(NamedTuple):
    """A GPU of the machine."""

    free_gib: float
    uuid: str = "GPU-0"
    name: str = "NVIDIA H200"


class Memory(NamedTuple):
    """The part of NVML's answer that is used."""

    free: int


def has_gpus(
    monkeypatch: pytest.MonkeyPatch,
    gpus: Sequence[Gpu],
    is_usable: bool = True,
    problem: str = "",
    visible: str | None = None,
    build: str | None = "12.8",
) -> None:
    """Give this machine some GPUs.

    Args:
        monkeypatch: of the test.
        gpus: in the order of NVML.
        is_usable: whether torch can use them.
        problem: why NVML does not answer; empty if it does.
        visible: the value of CUDA_VISIBLE_DEVICES.
        build: the version of CUDA that torch was built for.
    """
    module = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def initialise() -> None:
        if problem:
            raise NVMLError(problem)

    def by_uuid(uuid: str) -> Gpu:
        return next(gpu for gpu in gpus if gpu.uuid == uuid)

    functions = {
        "NVMLError": NVMLError,
        "nvmlInit": initialise,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": lambda number: gpus[number],
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
        "nvmlDeviceGetName": lambda gpu: gpu.name,
        "nvmlDeviceGetMemoryInfo": lambda gpu: Memory(int(gpu.free_gib * GIB)),
    }
    for name, function in functions.items():
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_usable)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus) if is_usable else 0)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
