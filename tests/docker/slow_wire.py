"""A wire between two network interfaces that delays each frame and loses some.

    python slow_wire.py NEAR FAR DELAY_S LOSS

NEAR and FAR are TAP devices, which it makes and which end with it. It says `ready` when they exist.
Unlike the kernel's netem this needs no module, and no more than a few Mbit/s pass.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536
SEED = 7  # of the losses


def main() -> None:
    near, far, delay_s, loss = sys.argv[1:]
    ends = open_tap(near), open_tap(far)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    carry(ends, float(delay_s), float(loss), random.Random(SEED))


def open_tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
    return end


def carry(ends: tuple[int, int], delay_s: float, loss: float, chance: random.Random) -> None:
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    under_way: deque[tuple[float, int, bytes]] = deque()  # when due, and where
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for end in select.select(ends, [], [], wait_s)[0]:
            frame = os.read(end, FRAME_BYTES)
            if chance.random() >= loss:
                under_way.append((time.monotonic() + delay_s, other[end], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, frame = under_way.popleft()
            try:
                os.write(end, frame)
            except OSError:  # the interface is down, or its queue is full: the frame is lost
                continue


if __name__ == "__main__":
    main()
