"""The GPUs of this machine and their free memory. Knows no Ray.

NVIDIA's driver is asked through NVML, which needs no CUDA context: that would take some of the
memory, and seconds.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import torch

ASSUMED_BYTES = 8 << 30  # free memory of a GPU that does not report it
NOT_INSTALLED = "nvidia-ml-py is not installed"
# Why the driver does not answer where there is none; any other reason is of one that is broken.
NO_DRIVER = (NOT_INSTALLED, "NVML Shared Library Not Found", "Driver Not Loaded")


@dataclass(frozen=True)
class GpuReport:
    """The GPUs of a machine that its processes see."""

    name: str  # of the first one; empty if unknown
    free_bytes: int  # of the GPU with the least; 0 if torch can use none of them
    problem: str = ""  # why torch can use none, or why the memory is unknown


def gpus_here() -> GpuReport | None:
    """Return the GPUs of this machine, or None if it has none."""
    is_usable, reason = _usable_by_torch()
    found, problem = _from_driver()
    if problem and is_usable:  # with another driver than NVIDIA's, say
        return GpuReport("", ASSUMED_BYTES, problem)
    if problem and problem not in NO_DRIVER:
        return GpuReport("", 0, problem)
    if not found:
        return None
    name = found[0][0]
    if not is_usable:
        return GpuReport(name, 0, reason)
    return GpuReport(name, min(free_bytes for _, free_bytes in found))


def _usable_by_torch() -> tuple[bool, str]:
    """Return whether torch can use a GPU, and why not if there is one. CUDA makes no context."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        is_usable = torch.cuda.is_available()
    if not (torch.version.cuda or torch.version.hip):
        return is_usable, "this build of torch is for CPUs"
    text = str(messages[-1].message) if messages else "torch finds none that it can use"
    return is_usable, text.splitlines()[0]


def _from_driver() -> tuple[list[tuple[str, int]], str]:
    """Return the name and the free bytes of each visible GPU, and why they are unknown, if so."""
    try:
        import pynvml  # of nvidia-ml-py; a machine without Ray and MLflow may lack it too
    except ImportError:
        return [], NOT_INSTALLED
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], str(error)
    try:
        return [_name_and_memory(each) for each in _visible_devices()], ""
    except pynvml.NVMLError as error:
        return [], str(error)
    finally:
        pynvml.nvmlShutdown()


def _name_and_memory(device: object) -> tuple[str, int]:
    import pynvml

    return str(pynvml.nvmlDeviceGetName(device)), int(pynvml.nvmlDeviceGetMemoryInfo(device).free)


def _visible_devices() -> list[object]:
    """Return the devices of NVML that CUDA_VISIBLE_DEVICES names: all if it is not set.

    It has numbers or UUIDs, which may be shortened. CUDA takes those before the first that does not
    exist. (It may count GPUs of several kinds in another order than NVML.)
    """
    import pynvml

    count = pynvml.nvmlDeviceGetCount()
    devices = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return devices
    by_number = {str(number): device for number, device in enumerate(devices)}
    by_uuid = {str(pynvml.nvmlDeviceGetUUID(device)): device for device in devices}
    found = []
    for text in (part.strip() for part in wanted.split(",")):
        device = by_number.get(text)
        if text.startswith("MIG-"):
            device = pynvml.nvmlDeviceGetHandleByUUID(text)
        elif text.startswith("GPU-"):
            device = next((by_uuid[uuid] for uuid in by_uuid if uuid.startswith(text)), None)
        if device is None:
            break
        found.append(device)
    return found
