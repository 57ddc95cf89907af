"""Settings of the C heap for the tensors of training steps. Knows no Ray."""

from __future__ import annotations

import ctypes
import platform

KEPT = 1 << 28  # freed bytes that the process keeps for the next step
MAPPED_FROM = 1 << 25  # bytes from which a tensor is mapped separately; glibc's maximum
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_between_steps() -> None:
    """Let the process keep the memory that a step frees, for the next step.

    By default glibc returns large blocks to the system, which clears each page when the next step
    asks for it: 2,000 page faults, a fifth of the time, at some steps of a few ms. Other C
    libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
