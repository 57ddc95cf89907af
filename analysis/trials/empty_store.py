"""An empty MLflow store in a file, as MLflow's migrations leave it, without their seconds.

The tables are in `empty_store.sql`, which is of one version of MLflow's tables; with another
version the migrations run. `python -m tests.analysis.test_empty_store` writes it anew.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = Path(__file__).with_name("empty_store.sql")


def write_empty_store(path: Path) -> None:
    """Write the tables to a new file."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES.read_text(encoding="utf-8"))


def tables_of(path: Path) -> str:
    """Return the tables of a store as SQL, without experiments: MLflow makes its own one."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM experiments")
        return "".join(f"{statement}\n" for statement in database.iterdump())
