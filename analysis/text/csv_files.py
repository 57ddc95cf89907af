"""CSV files, written so that a spreadsheet runs no formula.

A text that a spreadsheet would take for a formula is written behind a single quote, as OWASP has it
("CSV injection"); reading takes the quote away.
"""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path
from typing import TypeVar

import pandas as pd

from analysis.errors import AnalysisError

FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four are full-width
MOST_BYTES = 100 << 20  # of a file that is read: some 300,000 trials
MOST_COLUMNS = 1_000

Cell = TypeVar("Cell")


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV, with all digits of its numbers, without the index."""
    texts = table.rename(columns=_with_quote)
    for name in texts.select_dtypes(exclude=["number", "bool"]):
        texts[name] = texts[name].map(_with_quote)
    text = str(texts.to_csv(index=False))
    if "\r" not in text:
        return text
    return str(texts.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))  # it is bare otherwise


def read_csv(path: Path) -> pd.DataFrame:
    """Return the cells of a file as text, missing where they are empty.

    Raises:
        AnalysisError: it is no CSV file with names in its first line, or too large.
    """
    try:
        if not path.is_file() and path.exists():
            raise AnalysisError(f"{path} is not a file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise AnalysisError(
                f"{path} is too large: {size >> 20} MiB; at most {MOST_BYTES >> 20} MiB are read"
            )
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).loc[0]
        return _cells(path, [_without_quote(str(name)) for name in names])
    except AnalysisError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise AnalysisError(f"{path} cannot be read: {reason}") from None


def _cells(path: Path, names: list[str]) -> pd.DataFrame:
    if len(names) > MOST_COLUMNS:
        raise AnalysisError(f"{path} has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise AnalysisError(f"{path}: column {twice[0]!r} is there twice")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(
                path,
                names=names,
                header=0,
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_values=[""],
            )
        except pd.errors.ParserWarning:
            raise AnalysisError(f"{path}: a row has more cells than the first line") from None
    return table.map(_without_quote).astype(str)


def _with_quote(value: Cell) -> Cell | str:
    is_text = isinstance(value, str) and FORMULA.match(value) and not _is_number(value)
    return f"'{value}" if is_text else value


def _without_quote(value: Cell) -> Cell | str:
    if isinstance(value, str) and value.startswith("'") and FORMULA.match(value):
        return value[1:]
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
