"""Rows of a table by the values of their settings."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

Value = bool | int | float | str


def select(table: pd.DataFrame, selection: Mapping[str, Value | list[Value]]) -> pd.DataFrame:
    """Return the rows that have these values."""
    for name, value in selection.items():
        values = value if isinstance(value, list) else [value]
        table = table[table[name].isin([as_in(table[name], wanted) for wanted in values])]
    return table


def as_in(column: pd.Series, value: Value) -> Value:
    """Convert a value of YAML to the column's type: 1e-3, "8", true to 0.001, 8, "True"."""
    if not pd.api.types.is_numeric_dtype(column):  # words, and perhaps numbers
        return next((known for known in column.unique() if str(known) == str(value)), str(value))
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number
