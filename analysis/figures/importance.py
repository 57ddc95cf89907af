"""The figure of which settings mattered: bars for each, by two estimators."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from analysis.figures.style import as_figure
from analysis.results.importances import MEANING, WITHIN
from analysis.text.document import Figure

MOST_SETTINGS = 15
BARS = dict(zip(MEANING, (("#0072B2", ""), ("#E69F00", "///")), strict=True))


def importance_bars(table: pd.DataFrame) -> Figure:
    """Draw bars for each setting, a panel for each scope.

    Args:
        table: of `analysis.importance`.
    """
    scopes = {
        str(scope): rows.head(MOST_SETTINGS).reset_index(drop=True)
        for scope, rows in table.groupby("scope", sort=False)
    }
    sizes = [len(rows) for rows in scopes.values()]
    height = 0.45 * sum(sizes) + 0.5 * len(sizes) + 1.0
    canvas = Canvas(figsize=(7.5, height), layout="constrained")
    panels = canvas.subplots(len(sizes), 1, sharex=True, squeeze=False, height_ratios=sizes)
    for axes, (scope, rows) in zip(panels.flat, scopes.items(), strict=True):
        _bars(axes, rows)
        axes.set_title(f"{scope} ({rows['trials'].max()})")
    values = np.concatenate([rows[list(BARS)].to_numpy().ravel() for rows in scopes.values()])
    panels[0, 0].set_xlim(0, 1.1 * float(np.nanmax(values)))
    panels[-1, 0].set_xlabel(
        "importance for val_loss (a share, among the trials that have the setting)"
    )
    canvas.suptitle("What mattered")
    handles, names = panels[0, 0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=2)
    return as_figure("importance", _caption(table), canvas)


def _caption(table: pd.DataFrame) -> str:
    meaning = "; ".join(f"{name}: {text}" for name, text in MEANING.items())
    within = part = ""
    if (table["scope"] == WITHIN).any():
        within = f" In {WITHIN!r} the median of its study is taken from each loss."
    if table["trials"].nunique() > 1 and table.groupby("scope")["trials"].nunique().max() > 1:
        part = (
            " A setting that not all trials have is measured among those that have it, apart from"
            " the sum."
        )
    return (
        f"How far each setting explains val_loss in {table['trials'].max()} finished trials."
        f" {meaning}.{within}{part} It describes these trials and tests nothing."
    )


def _bars(axes: Axes, rows: pd.DataFrame) -> None:
    for index, (name, (color, hatch)) in enumerate(BARS.items()):
        at = np.arange(len(rows)) + (index - 0.5) * 0.36
        axes.barh(at, rows[name], 0.34, color=color, hatch=hatch, ec="white", lw=0, label=name)
        for y, value in zip(at, rows[name], strict=True):
            axes.annotate(
                f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows["setting"]))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
