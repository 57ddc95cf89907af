"""Trials in a CSV file, written by people or beside a report.

Only an empty cell is a missing setting: None, NA and null are levels like any other. In columns
that are not settings, such words mean a missing value.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from analysis.errors import AnalysisError, listed
from analysis.text.csv_files import csv_text, read_csv
from analysis.trials.table import (
    IDENTITY,
    METRICS,
    TAGS,
    WAITING,
    Trials,
    column,
    in_reading_order,
    param,
    typed,
)

TRIALS = "trials.csv"
PLANNED = "planned"  # the number of rows of a table that has every planned trial
OURS = (*IDENTITY, "status", *TAGS, *METRICS, PLANNED)  # columns that are not settings
STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED", WAITING)
STAGES = ("search", "confirm")
NOTHING = ("na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none")
NOT_STOPPED = ("false", "no", "0")
MOST_SHOWN = 80  # characters of a cell


def read_trials_csv(path: Path) -> Trials:
    """Read a file with one row for each trial.

    Raises:
        AnalysisError: it cannot be read, lacks the losses, or a cell has an impossible value.
    """
    table = read_csv(path)
    _check_spelling(path, table.columns)
    known = table.columns.intersection(list(OURS))
    for name in known:
        table[name] = table[name].where(~_is_one_of(table[name], NOTHING))
    for name in METRICS:
        table[name] = _numbers(path, table[name]) if name in table else math.nan
    for name in ("status", *TAGS):
        table[name] = table[name].fillna("") if name in table else ""
    table["status"] = _words(path, table["status"], STATUSES).replace("", "FINISHED")
    if not (table["val_loss"].notna() | (table["status"] != "FINISHED")).any():
        raise AnalysisError(
            f"{path} has no val_loss; expected one row for each trial with that column"
        )
    table["stage"] = _words(path, table["stage"], STAGES)
    table["stopped"] = table["stopped"].mask(_is_one_of(table["stopped"], NOT_STOPPED), "")
    _check_seeds(path, table)
    planned = _whole_plan(path, table)
    rows = pd.Series([f"row {index + 2}" for index in table.index], dtype=str)
    rows = rows.mask(table["status"] == WAITING, "")  # it has no run
    for name in IDENTITY:
        _check_once(path, table, name)
        table[name] = table[name].fillna(rows) if name in table else rows
    params = in_reading_order(column(name, OURS) for name in set(table.columns) - {*OURS})
    table = table.rename(columns={param(name, OURS): name for name in params})
    table = typed(str(path), table, params)
    return Trials(path.stem, table, params, planned=table.iloc[:0] if planned else None)


def write_trials_csv(trials: Trials, folder: Path, source: str = "") -> Path:
    """Write ``trials.csv``, on which claims get the same verdicts as on these trials.

    Args:
        trials: those that claims are tested on (see `analysis.trials.confirmed`).
        folder: created if it does not exist.
        source: the file that they were read from, which is not replaced.
    """
    path = folder / TRIALS
    if path.exists() and source and path.samefile(source):
        return path
    table = trials.table.drop(columns=PLANNED, errors="ignore")
    if trials.plan_known:
        table = table.assign(**{PLANNED: len(table)})
    if "test_loss" in table and table["test_loss"].isna().all():
        table = table.drop(columns="test_loss")
    names = [name for name in OURS if name in table]
    table = table.sort_values([*trials.params, "run_id", "key"], kind="stable")
    table = table[[*trials.params, *names]]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(csv_text(table.rename(columns=lambda name: param(str(name), OURS))).encode())
    return path


def _check_spelling(path: Path, names: Collection[str]) -> None:
    """Refuse a column such as ``Status``: as a setting it would have another meaning."""
    for name in names:
        meant = name.strip().lower()
        if meant != name and meant in (*OURS, "seed"):
            raise AnalysisError(
                f"{path}: write the column {name!r} as {meant}, or give it another name if it is"
                " a setting"
            )


def _numbers(path: Path, cells: pd.Series[str]) -> pd.Series[float]:
    """Return cells as numbers, missing where the cells are."""
    try:
        return cells.astype(float)
    except ValueError:
        for index, text in cells.dropna().items():
            try:
                float(text)
            except ValueError:
                _refuse(path, cells, index, "is no number")
        raise


def _words(path: Path, cells: pd.Series[str], known: Collection[str]) -> pd.Series[str]:
    """Return the cells in the spelling of the known words, whatever their case and spaces."""
    spelled = {word.lower(): word for word in ("", *known)}
    words = cells.str.strip().str.lower().map(spelled)
    for index in cells.index[words.isna()]:
        _refuse(path, cells, index, f"is unknown; known: {listed(known)}, or an empty cell")
    return words


def _check_seeds(path: Path, table: pd.DataFrame) -> None:
    if "seed" not in table:
        return
    numbers = pd.to_numeric(table["seed"], errors="coerce")
    for index in table.index[numbers.isna() | (numbers % 1 != 0)]:
        _refuse(path, table["seed"], index, "is no whole number")


def _check_once(path: Path, table: pd.DataFrame, name: str) -> None:
    """Refuse two rows of the same trial, such as a copied row."""
    if name == "name" or name not in table:
        return
    cells = table[name].dropna()
    for index in cells.index[cells.duplicated()]:
        _refuse(path, cells, index, "is there twice; each row is another trial")


def _whole_plan(path: Path, table: pd.DataFrame) -> bool:
    """Return whether the file has a row for each planned trial, by its column with their number."""
    cells = table.pop(PLANNED) if PLANNED in table else pd.Series(dtype=str)
    if cells.isna().all():
        return False
    for index in cells.index[cells != str(len(table))]:
        remedy = "bring the others back, or remove the column where the plan is not known"
        _refuse(path, cells, index, f"is no count of the {len(table)} rows; {remedy}")
    return True


def _is_one_of(cells: pd.Series[str], words: Collection[str]) -> pd.Series[bool]:
    return cells.str.strip().str.lower().isin(words)


def _refuse(path: Path, cells: pd.Series, index: Any, reason: str) -> NoReturn:
    """Raise an error about a cell; rows are counted as in a spreadsheet.

    Args:
        path: of the file.
        cells: a column of it.
        index: of the cell: a number, which pandas types as Any.
        reason: in words.

    Raises:
        AnalysisError: always.
    """
    text = "" if pd.isna(cells[index]) else str(cells[index])[:MOST_SHOWN]
    raise AnalysisError(f"{path}: row {index + 2}: {cells.name} {text!r} {reason}")
