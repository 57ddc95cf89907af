"""Figures of learning curves, and of losses over training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.data import (
    Configurations,
    ceiling,
    learning_curves,
    number,
    spread,
    thinned,
)
from analysis.figures.fronts import SAME_TIME, cost_front
from analysis.figures.style import (
    COLOURS,
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
    ordered_look,
    panels,
    set_log_ticks,
)
from analysis.text.document import Figure
from analysis.trials.table import is_finite

MOST_CURVES = 60
MOST_LINES = 8  # in a panel
MOST_PANELS = 4  # in a row or column
MOST_REFERENCES = 3
MOST_POINTS = 500
MOST_NAMES = 12
WARM_UP = 0.2  # of the steps: losses before may lie above the frame


def curve_panels(shown: Configurations, points: pd.DataFrame) -> Figure | None:
    """Draw losses over the steps: panels by label and facet, a line for each ``x``."""
    table = learning_curves(shown, points)
    table = table[table.groupby("configuration")["step"].transform("size") > 1]
    known = shown.table[shown.table.index.isin(table["configuration"])]
    if known.empty:
        return None
    drawn, looks = _panels(shown, known)
    most_references = MOST_REFERENCES if drawn["placed"].any() else 0
    references = known[known["reference"]].sort_values("val_loss").head(most_references)
    table = table[table["configuration"].isin([*drawn.index, *references.index])]
    lines = {
        configuration: thinned(curve) for configuration, curve in table.groupby("configuration")
    }
    rows, columns = sorted(set(drawn["row"])), list(dict.fromkeys(drawn["column"]))
    places = [(row, column) for row in rows for column in columns]
    width = 2.9 if len(columns) > 1 else 6.5
    canvas, used = panels(len(rows), len(columns), len(places), width, 2.1)
    for axes, (row, column) in zip(used, places, strict=True):
        axes.set_title(", ".join(filter(None, [row, column])))
        for index, configuration in enumerate(references.index):
            curve = lines[configuration]
            axes.plot(curve["step"], curve["mean"], color=GREY, ls=LINES[index + 1], lw=1)
        panel = drawn[(drawn["row"] == row) & (drawn["column"] == column)]
        for configuration, line in panel["line"].items():
            _curve(axes, lines[configuration], looks[line])
    cut = _zoom(used[0], table)
    used[0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    name_axes(used, "step (optimizer updates)", LOSS)
    canvas.suptitle("Learning curves")
    handles = _keys(looks, list(references["name"]))
    legend_below(canvas, handles, [str(handle.get_label()) for handle in handles])
    band = "" if table["n"].max() == 1 else "; bands reach from the lowest seed to the highest"
    shows = f"val_loss over the steps, {mean_over(table['n'])}{band}.{cut}{_picked(shown)}"
    return as_figure("curves", shows + _left_out(drawn, references, known), canvas)


def _keys(looks: Mapping[str, Look], references: Sequence[str]) -> list[Line2D]:
    """Return the keys of a legend: of each line, and of each reference."""
    lines = [Line2D([], [], **_line_style(style), label=line) for line, style in looks.items()]
    return lines + [
        Line2D([], [], color=GREY, ls=LINES[index + 1], lw=1, label=name)
        for index, name in enumerate(references)
    ]


def _left_out(drawn: pd.DataFrame, references: pd.DataFrame, known: pd.DataFrame) -> str:
    count = len(drawn) + len(references)
    which = "the best of each kind" if drawn["placed"].any() else "the best"
    text = f" {count} of {len(known)} configurations are drawn, {which}."
    return text if count < len(known) else ""


def cost(shown: Configurations, width: float = 9) -> Figure | None:
    """Draw losses over training time with their Pareto front, `width` inches wide."""
    known = shown.table[is_finite(shown.table["training_seconds"])]
    if len(known) < 2:
        return None
    steps = cost_front(shown, known)
    drawn = known.nsmallest(MOST_POINTS, "val_loss", keep="first")
    drawn = drawn[drawn["val_loss"] <= ceiling(drawn["val_loss"])]
    named = steps.loc[spread([row for row in steps.index if row in drawn.index], MOST_NAMES)]
    canvas = Canvas(figsize=(width, 4.4), layout="constrained")
    axes = canvas.subplots()
    _draw_points(axes, drawn, shown.labels[: len(COLOURS) - 1])
    axes.margins(y=0.1)  # below the lowest points are their numbers
    spans = drawn["training_seconds"]
    if spans.min() > 0 and spans.max() / spans.min() >= 5:
        set_log_ticks(axes)
    room = axes.axis()  # of what is drawn; the line may begin outside
    axes.step(
        steps["training_seconds"], steps["val_loss"], where="post", color=GREY, lw=1,
        label="Pareto front" if len(steps) > 1 else None,
    )  # fmt: skip
    axes.axis(room)
    axes.set_xlabel("training_seconds (s, without evaluation)")
    axes.set_ylabel(LOSS)
    axes.set_title("What a loss costs")
    _number(axes, named)
    if len(shown.labels) > 1:
        canvas.legend(loc="outside right upper")
    numbered = [f"{index + 1}  {name}" for index, name in enumerate(named["name"])]
    legend_below(canvas, [Line2D([], [], ls="")] * len(named), numbered)
    return as_figure("cost", _cost_caption(shown, known, drawn), canvas)


def _draw_points(axes: Axes, drawn: pd.DataFrame, first: Sequence[str]) -> None:
    """Draw a point for each configuration, in the look of its label; all but the first alike."""
    labels = drawn["label"].where(drawn["label"].isin(first), "others")
    for index, label in enumerate([*first, "others"]):
        points, style = drawn[labels == label], look(index)
        if not points.empty:
            axes.scatter(
                points["training_seconds"], points["val_loss"], s=30, c=style.color,
                marker=style.marker, edgecolors="white", linewidths=0.5,
                label=legible(label) or "(none)", zorder=3,
            )  # fmt: skip


def _cost_caption(shown: Configurations, known: pd.DataFrame, drawn: pd.DataFrame) -> str:
    hardware = shown.rows["hardware"].nunique()
    text = (
        f"val_loss over training time, a point a configuration ({mean_over(known['n'])}). The line"
        " joins those that no other beats in both, and numbers name them. It has no step for losses"
        " that differ by less than their intervals over the seeds, nor for times that differ by"
        f" less than theirs or {SAME_TIME:.0%}.{_picked(shown)}"
        f"{f' The trials ran on {hardware} kinds of hardware.' if hardware > 1 else ''}"
    )
    if len(drawn) < len(known):
        text += f" The best {len(drawn)} of {len(known)} configurations are drawn."
    return text


def _panels(shown: Configurations, known: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[str, Look]]:
    """Return what is drawn, with columns ``row``, ``column``, ``line``; and each line's look."""
    grid = known[known["placed"]].nsmallest(MOST_CURVES, "val_loss", keep="first")
    if grid.empty:
        best = known.nsmallest(MOST_LINES, "val_loss", keep="first")
        drawn = best.assign(row="", column="", line=best["name"])
        return drawn, {line: look(index) for index, line in enumerate(drawn["line"])}
    labels = set(grid.groupby("label")["val_loss"].min().nsmallest(MOST_PANELS).index)
    levels = spread(sorted(set(grid[shown.x])), MOST_LINES)
    grid = grid[grid["label"].isin(labels) & grid[shown.x].isin(levels)]
    names = {level: f"{shown.x} = {number(level)}" for level in levels}
    lines = [names[level] for level in grid[shown.x]]
    grid = grid.assign(row="", column=grid["label"], line=lines)
    if shown.facet:
        facets = spread(sorted(set(grid[shown.facet])), MOST_PANELS)
        grid = grid[grid[shown.facet].isin(facets)].sort_values(shown.facet)
        columns = [f"{shown.facet} = {number(level)}" for level in grid[shown.facet]]
        grid = grid.assign(row=grid["label"], column=columns)
    looks = {name: ordered_look(index, len(names)) for index, name in enumerate(names.values())}
    return grid, looks


def _curve(axes: Axes, curve: pd.DataFrame, style: Look) -> None:
    every, color = max(1, len(curve) // 10), style.color
    axes.plot(curve["step"], curve["mean"], **_line_style(style), markevery=every)
    axes.fill_between(curve["step"], curve["low"], curve["high"], color=color, alpha=0.2, lw=0)


def _number(axes: Axes, points: pd.DataFrame) -> None:
    """Number the points, below and left of each; further down if the number before is near."""
    before, down = np.array([-np.inf, 0]), 0
    for index, row in enumerate(points.to_dict("records")):
        place = (row["training_seconds"], row["val_loss"])
        pixels = axes.transData.transform(place)
        down = down + 10 if abs(pixels - before).max() < 18 else 0
        before = pixels
        axes.annotate(
            str(index + 1), place, (-4, -4 - down), textcoords="offset points", ha="right",
            va="top", fontsize=8.5, fontweight="bold",
        )  # fmt: skip


def _picked(shown: Configurations) -> str:
    if not shown.picked_by_a_search:
        return ""
    return " A search picked these trials, so the best look better than they would again."


class LineStyle(TypedDict):
    """The look of a line, as matplotlib takes it."""

    color: str
    ls: str | tuple[int, tuple[int, ...]]
    marker: str
    ms: float
    lw: float


def _line_style(style: Look) -> LineStyle:
    return {"color": style.color, "ls": style.line, "marker": style.marker, "ms": 3.5, "lw": 1.2}


def _zoom(axes: Axes, table: pd.DataFrame) -> str:
    """Set a y range that shows the end; return a sentence where the beginning lies above it."""
    start, end = table["step"].min(), table["step"].max()
    late = table[table["step"] >= start + WARM_UP * (end - start)]
    top = ceiling(late["high"])
    low = late["low"].min()
    room = 0.04 * (top - low) or 0.01
    axes.set_ylim(low - room, top + room)
    return " What lies above the frame is cut off." if table["high"].max() > top else ""
