"""What the C heap does with the memory of a step's tensors. Knows no Ray."""

from __future__ import annotations

import ctypes
import platform

KEPT = 1 << 28  # bytes that were freed last and stay with the process, for the next step
MAPPED_FROM = 1 << 25  # bytes of a tensor that is mapped by itself; the most that glibc takes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_between_steps() -> None:
    """Let the process keep what a step frees, as the next one asks for it again.

    By default glibc gives large pieces back to the system, which then clears each of their pages
    anew: 2,000 page faults, a fifth of the time, at some steps of a few ms. Other C libraries stay
    as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
