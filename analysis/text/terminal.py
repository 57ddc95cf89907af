"""Output for people, on a terminal or in a pipe.

Names, settings and reasons are data: they cannot style text or move the cursor, and are printed in
any encoding.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len

GAP = "  "  # between columns
# Controls but tab and line feed, marks that turn the direction of text, and lone surrogates.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return the text with an escape such as ``\\x1b`` for each invisible character."""
    return HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def in_a_line(value: object) -> str:
    """Return the `visible` text of a value, without line breaks and tabs."""
    return visible(str(value)).replace("\n", r"\n").replace("\t", r"\t")


def printable(value: object) -> str:
    """Return a value `in_a_line`, with an escape for each character that stdout cannot encode."""
    encoding = sys.stdout.encoding or "utf-8"
    return in_a_line(value).encode(encoding, "backslashreplace").decode(encoding)


def set_up(program: str) -> None:
    """Let this process print and log in any encoding.

    Args:
        program: heads each line that is logged.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible(f"{program}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # No warnings of matplotlib, which other libraries import too, about caches it cannot write.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def say(text: str) -> None:
    """Print one or more lines."""
    sys.stdout.write(f"{visible(text)}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line to standard error, such as where files are."""
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()


def try_to_say(text: str) -> None:
    """Print a line; if the output is closed or full, continue without an error."""
    try:
        say(text)
    except OSError:  # the pipe or the terminal is closed, or the disk is full
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def pass_on(text: str) -> None:
    """Write a text as it is; on a terminal with visible control characters."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def complain(program: str, error: object) -> None:
    """Print a user's mistake to standard error."""
    text = visible(f"{program}: {error}").replace("\n", "\n        ")
    sys.stderr.write(f"{text}\n")


def table(names: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in columns: on a terminal with lines that fit, else in full.

    Words are never broken: if they do not fit, lines are wider than the terminal.
    """
    lines = [[printable(cell) for cell in row] for row in (names, *rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    if sys.stdout.isatty():
        words = [max(map(cell_len, " ".join(column).split()), default=1) for column in columns]
        widths = _fitting(widths, words, shutil.get_terminal_size().columns)
    return "\n".join(text for line in lines for text in _wrapped(line, widths))


def _fitting(widths: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    """Narrow the widest columns until a line fits; return the widths as they are if none can.

    Args:
        widths: as they are.
        least: of each column.
        most: of a line.
    """
    narrow, gaps = list(widths), len(GAP) * (len(widths) - 1)
    if sum(least) + gaps > most:
        return narrow
    while sum(narrow) + gaps > most:
        _, widest = max((n, i) for i, n in enumerate(narrow) if n > least[i])
        narrow[widest] -= 1
    return narrow


def _wrapped(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of text of a row of a table."""
    cells = [
        [cell] if cell_len(cell) <= width else textwrap.wrap(cell, width, break_long_words=False)
        for cell, width in zip(line, widths, strict=True)
    ]
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        padded = (
            part + " " * (width - cell_len(part)) for part, width in zip(parts, widths, strict=True)
        )
        yield GAP.join(padded).rstrip()


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
