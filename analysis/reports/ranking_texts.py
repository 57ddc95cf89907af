"""Rankings in words and tables for a terminal, at most a screen of them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.results.ranking import DECIMALS, INTERVAL
from analysis.text.document import in_short
from analysis.text.terminal import in_a_line
from analysis.text.terminal import table as columns
from analysis.trials.table import Trials

MOST_ROWS = 20  # of the ranking
MORE = "--markdown and --csv print all"
MOST_IN_GRID = 12  # rows and columns
MOST_MEANS = 3  # settings whose means are shown
MEAN_WIDTH = 55  # characters of the levels and their means in a line
MEAN_DECIMALS = 4
NOT_SHOWN = ["train_loss", "best_val_loss", "training_seconds", "run_ids"]


def ranking_text(named: Mapping[str, pd.DataFrame], every_pivot: bool = False) -> str:
    """Return the best configurations, and the effects of the settings of a grid.

    Args:
        named: of `analysis.tables`.
        every_pivot: show each pivot, whatever its form; otherwise the largest of those that are a
            grid: pivots by its other settings have the same losses.
    """
    grids = {name: grid(table) for name, table in named.items() if name != "ranking"}
    shown = [name for name, cells in grids.items() if len(cells)]
    if not every_pivot:
        shown = sorted(shown, key=lambda name: grids[name].size)[-1:]
    ranking = named["ranking"]
    has_intervals = ranking[INTERVAL].notna().any(axis=None)
    means = ": the mean over n seeds, and its 95 % interval" if has_intervals else ", of one seed"
    parts = [f"val_loss in nats per character{means}\n"]
    parts.append(first_rows(ranking, "configurations"))
    for name, table in named.items():
        if name in shown:
            by = list(table)[list(table).index("n") - 1]
            parts.append(f"\nval_loss by {by} (columns); * is the best of its row\n")
            parts.append(_shown(grids[name].head(MOST_IN_GRID), "rows", len(grids[name])))
        elif every_pivot and name != "ranking":
            parts.append(f"\n{name}: no grid\n")
            parts.append(first_rows(table, "rows"))
    return "\n".join(parts)


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """Return a pivot as a grid: rows by the other settings, columns by its own setting.

    Args:
        table: of `analysis.pivot`, where the best of each group comes first.

    Returns:
        Words: in each row a star at the lowest val_loss. Empty if it has more columns than fit on
        a terminal.
    """
    settings = list(table.columns[: table.columns.get_loc("n")])
    *others, by = settings
    levels = sorted(table[by].dropna().unique(), key=lambda level: (isinstance(level, str), level))
    if len(levels) > MOST_IN_GRID:
        return pd.DataFrame()
    rows = []
    for _, group in table.groupby(others or (lambda _: 0), dropna=False, sort=False):
        losses = [in_short(loss, DECIMALS["val_loss"]) for loss in group["val_loss"]]
        losses[0] += "*"
        by_level = dict(zip(group[by].astype(str), losses, strict=True))
        row = {name: in_short(group[name].iloc[0]) for name in others}
        rows.append(row | {f"{by}={level}": by_level.get(str(level), "") for level in levels})
    cells = pd.DataFrame(rows)
    return cells.drop(columns=[n for n in others if len(rows) > 1 and cells[n].nunique() == 1])


def first_rows(table: pd.DataFrame, rows: str, more: str = MORE) -> str:
    """Return the first rows of a table, with the columns that a screen has room for.

    Args:
        table: its numbers are rounded here.
        rows: a word for its rows, such as "configurations".
        more: how to see the other rows.
    """
    empty = [name for name in INTERVAL if name in table and table[name].isna().all()]
    if "left_out" in table and not table["left_out"].any():
        empty.append("left_out")
    part = table.drop(columns=[*NOT_SHOWN, *empty], errors="ignore")
    texts = {name: [in_short(v, DECIMALS.get(str(name))) for v in part[name]] for name in part}
    return _shown(pd.DataFrame(texts).head(MOST_ROWS), rows, len(part), more)


def _shown(words: pd.DataFrame, rows: str, total: int, more: str = MORE) -> str:
    text = columns(list(words), words.itertuples(index=False))
    if len(words) < total:
        text += f"\nThe first {len(words)} of {total} {rows}; {more}."
    return text


def means_in_words(means: pd.DataFrame) -> list[str]:
    """Return mean losses by level, a line for each of the settings with the largest effects.

    The best level comes first.

    Args:
        means: of `analysis.results.ranking.level_means`.
    """
    lines = []
    for setting, rows in means.groupby("setting", sort=False):
        levels = [
            f"{in_short(row.level)} {in_short(row.val_loss, MEAN_DECIMALS)}"
            for row in rows.itertuples()
        ]
        while len(line := f"{setting}: {', '.join(levels)}") > MEAN_WIDTH and len(levels) > 3:
            levels[-3 if "..." in levels else -2 :] = ["...", levels[-1]]
        count = rows["n"].iloc[0]
        lines.append(in_a_line(f"{line} ({count} {'loss' if count == 1 else 'losses'} each)"))
    return lines[:MOST_MEANS]


def not_ranked(trials: Trials) -> str:
    """Return how many trials are not ranked, and why; empty if all are."""
    rest = {outcome: n for outcome, n in trials.outcomes.items() if outcome != "FINISHED"}
    whole = int((trials.finished["stopped"] == "").sum())
    if lost := trials.outcomes.get("FINISHED", 0) - whole:
        rest["without a loss"] = lost
    if not rest:
        return ""
    return f"not ranked: {', '.join(f'{n} {outcome}' for outcome, n in rest.items())}"
