"""Showing what a command does before its trials train."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def phase(doing: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Context manager: show what is done in it, with the seconds that it takes.

    Args:
        doing: such as "starting Ray".
        say: shows a line if the output is no terminal; None shows nothing then.
    """
    if not sys.stdout.isatty():
        if say:
            say(f"now     {doing}")
        yield
        return
    # Imported late: only a terminal needs it.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    spinner = Progress(*columns, console=console, transient=True)
    spinner.add_task(doing, total=None)
    spinner.start()
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal is closed
            spinner.stop()
