"""Finds processes of this machine in /proc, and kills those that a test left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

STARTED: list[subprocess.Popen[bytes]] = []  # to be ended with the test that started them


def end_started() -> None:
    """Kill the started processes that still run, with all that they started."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            for pid in (*(child for child, _ in descendants(process.pid)), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def descendants(pid: int) -> list[tuple[int, str]]:
    """Process ids and titles of all that a process started, directly or not."""
    parents = dict(_processes())
    found, grown = {pid}, True
    while grown:
        children = {child for child, (parent, _) in parents.items() if parent in found}
        grown = not children <= found
        found |= children
    return [(child, parents[child][1]) for child in found - {pid}]


def _processes() -> Iterator[tuple[int, tuple[int, str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                title = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), (parent, title)
