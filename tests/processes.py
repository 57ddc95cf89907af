"""The processes of this machine, by /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


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
