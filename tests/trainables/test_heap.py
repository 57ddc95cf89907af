"""A step's memory stays with the process."""

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import ctypes, resource, sys
from trainables.worker.heap import keep_between_steps

SIZE, PIECES, STEPS = 16 << 20, 4, 20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def faults_of_steps():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        pieces = [libc.malloc(ctypes.c_size_t(SIZE)) for _ in range(PIECES)]
        for piece in pieces:
            ctypes.memset(piece, 1, SIZE)
        for piece in pieces:
            libc.free(piece)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_between_steps()
faults_of_steps()
print(faults_of_steps())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told")
def test_no_page_is_cleared_anew_at_each_step() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", COUNT_FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 100 < faults("leave")
