"""Figures of the cost of a search: the best loss over its steps, losses over other objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from analysis.figures.data import ceiling, pareto, thinned
from analysis.figures.style import (
    COLOURS,
    LINES,
    LOSS,
    as_figure,
    legend_below,
    legible,
    set_log_ticks,
)
from analysis.results.studies import best_so_far, objectives, suggestions
from analysis.statistics import Floats
from analysis.text.document import Figure
from analysis.trials.table import Trials

MOST_LINES = 8  # studies with a line and a name each
MOST_POINTS = 500  # of a line
BEST_OF_MANY = "best so far above the best\nof its study (nats per character)"


def cost_of_search(trials: Trials) -> Figure | None:
    """Draw the best loss so far over the steps that the search had taken."""
    table = best_so_far(trials)
    table = table.assign(shown=table["best"])
    studies = table.loc[table["best"].notna(), "study"].nunique()
    many = studies > MOST_LINES
    if many:
        table["shown"] -= table.groupby("study")["best"].transform("min")
    canvas = Canvas(figsize=(7.5, 3.6), layout="constrained")
    axes = canvas.subplots()
    _draw_studies(axes, table, many)
    low, top = float(table["shown"].min()), ceiling(table["shown"].dropna())
    room = 0.05 * (top - low) or 0.01
    axes.set_ylim(low - room, top + room)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("steps of the search so far (optimizer updates, stopped trials included)")
    axes.set_ylabel(BEST_OF_MANY if many else "best val_loss so far\n(nats per character)")
    axes.set_title("What the search took")
    if not many:
        legend_below(canvas, *axes.get_legend_handles_labels())
    shows = (
        "The lowest val_loss among the finished suggestions against the steps of all, those that"
        " were stopped or failed as far as they came, in the order in which they were suggested."
    )
    if float(table["shown"].max()) > top:
        shows += " What lies above the frame is cut off."
    if many:
        shows += f" A grey line for each of {studies} studies, and their median in black."
    return as_figure("best_so_far", shows, canvas)


def _draw_studies(axes: Axes, table: pd.DataFrame, many: bool) -> None:
    """Draw a line for each study, with its name; if there are many, in grey with their median."""
    curves = [(str(study), rows) for study, rows in table.dropna(subset="best").groupby("study")]
    for index, (study, rows) in enumerate(curves):
        end = float(table.loc[table["study"] == study, "steps"].max())
        rows = thinned(rows, MOST_POINTS)
        steps, best = [*rows["steps"], end], [*rows["shown"], rows["shown"].iloc[-1]]
        if many:
            axes.step(steps, best, where="post", color="#999999", lw=0.7, alpha=0.8)
        else:
            color, line = COLOURS[index], LINES[index]
            axes.step(
                steps, best, where="post", color=color, lw=1.4, ls=line, label=legible(study)
            )  # fmt: skip
    if many:
        grid = np.linspace(0, float(table["steps"].max()), 200)
        axes.step(grid, _median_at(grid, [c for _, c in curves]), "k", where="post", lw=1.8)


def pareto_figure(trials: Trials) -> Figure | None:
    """Draw val_loss over each other objective, with the Pareto front of both."""
    others = [name for name in objectives(trials) if name != "val_loss"]
    table = suggestions(trials)
    known = table[table["outcome"] == "finished"].dropna(subset=others)
    if not others or len(known) < 2:
        return None
    canvas = Canvas(figsize=(4.2 * len(others) + 1, 3.8), layout="constrained")
    panels = list(canvas.subplots(1, len(others), sharey=True, squeeze=False).flat)
    inside = known[known["val_loss"] <= ceiling(known["val_loss"])]
    for axes, name in zip(panels, others, strict=True):
        edge = pareto(known, [name, "val_loss"])
        axes.scatter(inside[name], inside["val_loss"], s=16, c=COLOURS[0], alpha=0.6)
        axes.step(edge[name], edge["val_loss"], where="post", color=COLOURS[1], lw=1.2)
        axes.scatter(edge[name], edge["val_loss"], s=28, c=COLOURS[1], marker="s", zorder=3)
        if known[name].min() > 0 and known[name].max() / known[name].min() >= 5:
            set_log_ticks(axes)
        axes.set_xlabel(name)
    room = 0.05 * float(np.ptp(inside["val_loss"])) or 0.01
    panels[0].set_ylim(inside["val_loss"].min() - room, inside["val_loss"].max() + room)
    panels[0].set_ylabel(LOSS.replace(" (", "\n("))
    canvas.suptitle("What a loss costs in the search")
    shows = (
        f"val_loss of {len(inside)} finished suggestions over {' and '.join(others)}; the line"
        " joins those that no other beats in both. Each was measured once, by the search."
    )
    return as_figure("pareto", shows, canvas)


def _median_at(grid: Floats, curves: Sequence[pd.DataFrame]) -> Floats:
    """Return the median over studies of the best so far, where all of them have one."""
    heights = []
    for curve in curves:
        before = np.searchsorted(curve["steps"], grid, side="right") - 1
        values = curve["shown"].to_numpy(dtype=float)
        heights.append(np.where(before >= 0, values[before.clip(0)], np.nan))
    return np.asarray(np.median(heights, axis=0))
