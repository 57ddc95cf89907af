"""Figures of val_loss by setting: lines with intervals, and a heat map."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.data import Configurations, ceiling, number, spread
from analysis.figures.style import (
    GREY,
    LINES,
    LOSS,
    Look,
    as_figure,
    legend_below,
    legible,
    look,
    mean_over,
    name_axes,
    panels,
    set_scale,
)
from analysis.text.document import Figure, in_short

MOST_REFERENCES = 4
MOST_CELLS = 16  # on a side of a heat map
MOST_PANELS = 9
COLUMNS = 3


def loss_by(shown: Configurations, columns: int = COLUMNS) -> Figure | None:
    """Draw losses over the setting ``x``: a line for each label, a panel for each facet level.

    Args:
        shown: of a sweep.
        columns: of panels, at most.
    """
    if shown.grid.empty:
        return None
    grid = shown.grid.join(shown.intervals(shown.grid.index)[["mean", "low", "high"]])
    facets = spread(_facets(grid, shown.facet), MOST_PANELS)
    lines = [label for label in shown.labels if label in set(grid["label"])]
    references = shown.references.head(MOST_REFERENCES)
    columns = min(columns, len(facets))
    rows = math.ceil(len(facets) / columns)
    canvas, used = panels(rows, columns, len(facets), 2.9, 2.8)
    for axes, (title, panel) in zip(used, facets, strict=True):
        axes.set_title(title)
        scale = set_scale(axes, [float(level) for level in sorted(set(grid[shown.x]))])
        for index, label in enumerate(lines):
            middle = index - (len(lines) - 1) / 2
            _line(axes, panel[panel["label"] == label], shown.x, look(index), label, middle, scale)
        for index, row in enumerate(references.to_dict("records")):
            style = LINES[(index + 1) % len(LINES)]
            axes.axhline(row["val_loss"], color=GREY, ls=style, lw=1.2, label=legible(row["name"]))
    above = _frame(used[0], grid, references)
    name_axes(used, shown.x, LOSS)
    canvas.suptitle(f"val_loss by {shown.x}")
    legend_below(canvas, *used[0].get_legend_handles_labels())
    shows = (
        f"val_loss ({mean_over(grid['n'])}) by {shown.x}{_by(shown)}"
        f"{'' if (grid['n'] == 1).all() else '; bars are 95 % t intervals over the seeds'}"
        f"{'; with one seed there is no interval' if (grid['n'] == 1).any() else ''}."
        f"{_best_of(shown)}{_left_out(shown, len(references))}{above}"
    )
    return as_figure(f"loss_by_{safe(shown.x)}", shows, canvas)


def heatmap(shown: Configurations) -> Figure | None:
    """Draw mean losses over two numbers: a panel for each label, one colour scale."""
    if shown.grid.empty or not shown.facet:
        return None
    x = spread(sorted(set(shown.grid[shown.x])), MOST_CELLS)
    y = spread(sorted(set(shown.grid[shown.facet])), MOST_CELLS)
    grid = shown.grid[shown.grid[shown.x].isin(x) & shown.grid[shown.facet].isin(y)]
    labels = [label for label in shown.labels if label in set(grid["label"])]
    columns = min(len(labels), max(1, 12 // len(x)))
    rows = math.ceil(len(labels) / columns)
    canvas, used = panels(rows, columns, len(labels), 0.6 * len(x) + 0.6, 0.36 * len(y) + 0.4)
    colours = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(grid["val_loss"].min(), ceiling(grid["val_loss"])), "viridis"
    )
    for axes, label in zip(used, labels, strict=True):
        panel = grid[grid["label"] == label]
        cells = panel.pivot(index=shown.facet, columns=shown.x, values="val_loss")
        _cells(axes, cells.reindex(index=y, columns=x).astype(float), colours)
        axes.set_title(label)
    canvas.colorbar(colours, ax=canvas.axes, label=LOSS.replace(" (", "\n("), pad=0.02)
    name_axes(used, shown.x, shown.facet)
    canvas.suptitle(f"val_loss by {shown.facet} and {shown.x}")
    shows = (
        f"val_loss ({mean_over(grid['n'])}) by {shown.facet} and {shown.x}"
        f"{f', a panel for each {shown.labelled_by}' if len(labels) > 1 else ''};"
        f" darker is better.{_best_of(shown)}"
    )
    if len(grid) < len(shown.grid):
        shows += f" {len(grid)} of {len(shown.grid)} cells are shown."
    return as_figure("heatmap", shows, canvas)


def _facets(grid: pd.DataFrame, facet: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the title and rows of each panel."""
    if not facet:
        return [("", grid)]
    levels = sorted(set(grid[facet]))
    return [(f"{facet} = {number(level)}", grid[grid[facet] == level]) for level in levels]


def safe(name: str) -> str:
    """Return a setting's name as a part of a file's name."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name[:60])


def _line(
    axes: Axes, rows: pd.DataFrame, x: str, style: Look, label: str, middle: float, scale: str
) -> None:
    """Draw a line with its intervals, moved a little aside so that bars do not overlap."""
    rows = rows.sort_values(x)
    low, high = axes.get_xlim()
    at = rows[x].astype(float)
    step = 0.012 * middle
    at = at * (high / low) ** step if scale == "log" else at + (high - low) * step
    axes.plot(
        at,
        rows["mean"],
        color=style.color,
        ls=style.line,
        marker=style.marker,
        lw=1.4,
        label=legible(label),
    )
    some = rows["low"].notna()
    bars = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    axes.errorbar(
        at[some], rows["mean"][some], [bar[some] for bar in bars],
        fmt="none", ecolor=style.color, elinewidth=1.2, capsize=2.5,
    )  # fmt: skip


def _frame(axes: Axes, grid: pd.DataFrame, references: pd.DataFrame) -> str:
    """Choose the y range; a sentence on what lies above it."""
    lines = references["val_loss"]
    means = pd.concat([grid["mean"], lines])
    inside = grid[grid["mean"] <= ceiling(means)]
    kept = lines[lines <= ceiling(means)]
    ends = pd.concat([inside["mean"], inside["low"], inside["high"], kept]).dropna()
    room = 0.05 * float(np.ptp(ends)) or 0.01
    axes.set_ylim(float(ends.min()) - room, float(ends.max()) + room)
    above = len(means) - len(inside) - len(kept)
    lie = "1 far out lies" if above == 1 else f"{above} far out lie"
    return f" {lie} above the frame." if above else ""


def _cells(axes: Axes, cells: pd.DataFrame, colours: matplotlib.cm.ScalarMappable) -> None:
    axes.imshow(colours.to_rgba(cells.to_numpy()), aspect="auto", origin="lower")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(cells.columns)), [number(level) for level in cells.columns])
    axes.set_yticks(range(len(cells.index)), [number(level) for level in cells.index])
    axes.tick_params(length=0)
    for row, values in enumerate(cells.to_numpy()):
        for column, value in enumerate(values):
            red, green, blue, _ = colours.to_rgba(value)
            dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18  # luminance
            text = in_short(value, 3)
            ink = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8.5)


def _by(shown: Configurations) -> str:
    line = f", a line for each {shown.labelled_by}" if shown.grid["label"].nunique() > 1 else ""
    return line + (f", a panel for each {shown.facet}" if shown.facet else "")


def _best_of(shown: Configurations) -> str:
    if not shown.others:
        return ""
    return f" Of those that differ in {', '.join(shown.others)} the best one is shown."


def _left_out(shown: Configurations, drawn: int) -> str:
    text = " Horizontal lines: configurations without a place on the axes." if drawn else ""
    kinds, labels = shown.table[~shown.table["reference"]]["label"], shown.grid["label"]
    if labels.nunique() < kinds.nunique():
        text += f" The {labels.nunique()} best of {kinds.nunique()} {shown.labelled_by} are drawn."
    levels = shown.grid[shown.facet].nunique() if shown.facet else 0
    if levels > MOST_PANELS:
        text += f" There are panels for {MOST_PANELS} of {levels} {shown.facet}."
    more = len(shown.references) - drawn
    return text + (f" {more} more of these are not drawn." if more else "")
