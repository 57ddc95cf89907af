"""The ranking tables of a sweep, as the published study printed them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError
from analysis.runs import Trials

LOSSES = ["train_loss", "val_loss", "best_val_loss"]
DECIMALS = 5


def ranking(trials: Trials) -> pd.DataFrame:
    """All finished trials by val_loss, best first.

    Returns:
        Columns ``rank`` (from 1), the settings that differ, the losses in nats per character,
        ``training_seconds``, ``run_id``.

    Raises:
        AnalysisError: no trial is finished.
    """
    finished = trials.finished
    if finished.empty:
        raise AnalysisError(f"no trial of {trials.experiment!r} is finished")
    table = finished.sort_values(["val_loss", "key"], ignore_index=True)
    table.insert(0, "rank", table.index + 1)
    return table[["rank", *trials.varying, *LOSSES, "training_seconds", "run_id"]]


def pivot(trials: Trials, by: str) -> pd.DataFrame:
    """What one setting does, all others held fixed.

    Trials that differ in nothing but ``by`` form a group. Groups are sorted by their best val_loss,
    and so are the rows of a group; a group in which ``by`` does not vary is left out.

    Returns:
        Columns: the settings that differ, ``by`` last, then the losses.

    Raises:
        AnalysisError: ``by`` is not a setting that differs.
    """
    if by not in trials.varying:
        raise AnalysisError(
            f"{by!r} does not differ between the trials of {trials.experiment!r};"
            f" what differs: {', '.join(trials.varying) or 'nothing'}"
        )
    others = [name for name in trials.varying if name != by]
    table = trials.finished.copy()
    groups = table.groupby(others, dropna=False) if others else table.groupby("status")
    table["best_of_group"] = groups["val_loss"].transform("min")
    table["group"] = groups.ngroup()
    table = table[groups[by].transform("nunique") > 1]
    table = table.sort_values(["best_of_group", "group", "val_loss"], ignore_index=True)
    return table[[*others, by, *LOSSES]].dropna(axis="columns", how="all")


def pivot_settings(trials: Trials) -> list[str]:
    """The settings that a sweep is read by: numbers that differ, besides the seed."""
    return [
        name
        for name in trials.varying
        if name != "seed" and pd.api.types.is_numeric_dtype(trials.table[name])
    ]


def tables(trials: Trials, by: list[str] | None = None) -> dict[str, pd.DataFrame]:
    """The ranking and the pivots, by the names of their files.

    Args:
        trials: from `load_trials`.
        by: the settings to pivot by; None takes `pivot_settings`.
    """
    settings = pivot_settings(trials) if by is None else by
    pivots = {f"by_{name}": pivot(trials, name) for name in settings}
    return {"ranking": ranking(trials)} | {n: table for n, table in pivots.items() if len(table)}


def write_tables(named: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write each table as CSV (all digits) and Markdown (five decimals).

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in named.items():
        for suffix, text in ((".csv", table.to_csv(index=False)), (".md", markdown(table))):
            path = folder / f"{name}{suffix}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def markdown(table: pd.DataFrame) -> str:
    """A table for people: losses with five decimals, empty cells where a setting is missing."""
    text = table.astype(object).where(table.notna(), "")
    for name, decimals in {**dict.fromkeys(LOSSES, DECIMALS), "training_seconds": 1}.items():
        if name in table:
            text[name] = [f"{value:.{decimals}f}" for value in table[name]]
    sides = ["right" if pd.api.types.is_numeric_dtype(table[name]) else "left" for name in table]
    return str(text.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"
