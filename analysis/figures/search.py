"""Figures of a search: losses over each setting, and over all settings together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from analysis.figures.data import ceiling, number
from analysis.figures.effort import cost_of_search, pareto_figure
from analysis.figures.style import COLOURS, GREY, LOSS, as_figure, set_scale
from analysis.results.studies import chosen, suggestions
from analysis.statistics import Floats
from analysis.text.document import Figure
from analysis.trials.search_record import Space
from analysis.trials.table import Trials, is_finite

MOST_PANELS = 9
MOST_TICKS = 8
COLUMNS = 3
MOST_POINTS = 2_000
FEW_LINES = 50  # points overlap: they are transparent
GOLDEN = 0.618  # the fractional parts of its multiples are spread evenly
BEST = 0.1  # share of the suggestions drawn in front
Arm = Mapping[str, Space]
MARKS = {  # of outcomes
    "finished": "finished (dots)",
    "stopped": "stopped early (crosses, at their last val_loss)",
    "failed": "failed (ticks on top)",
}
EXCESS = "val_loss above the best\nof its study (nats per character)"


def search_figures(trials: Trials) -> list[Figure | None]:
    """Draw the figures of a search but `importance`; None in place of one that shows nothing."""
    tried = _tried(trials)
    if tried is None:
        return []
    return [slices(tried), parallel(tried), cost_of_search(trials), pareto_figure(trials)]


def slices_of(trials: Trials, columns: int) -> Figure | None:
    """Draw the losses of a search over each setting, in at most `columns` columns of panels."""
    tried = _tried(trials)
    return slices(tried, columns) if tried else None


def _tried(trials: Trials) -> Tried | None:
    """Return the suggestions of a search, if at least two have a loss."""
    table = suggestions(trials)
    if table["val_loss"].notna().sum() < 2:
        return None
    names = [name for name in chosen(trials) if _drawable(table[name]).nunique() > 1]
    return Tried(table, names, trials.search.arms if trials.search else ())


def _drawable(column: pd.Series) -> pd.Series:
    """Return the words of a setting, or its numbers without those that no axis can show."""
    is_number = pd.api.types.is_numeric_dtype(column)
    return column.where(is_finite(column)) if is_number else column


class Tried:
    """Suggestions of a search, and how to show them.

    Attributes:
        table: of `suggestions`, with the column ``shown``: the last val_loss, less the best of its
            study where there are several studies.
        names: the settings to show.
        label: of an axis with ``shown``.
    """

    def __init__(self, table: pd.DataFrame, names: Sequence[str], arms: Sequence[Arm]) -> None:
        best = table.groupby("study")["val_loss"].transform("min")
        studies = table["study"].nunique()
        self.table = table.assign(shown=table["last_loss"] - (best if studies > 1 else 0.0))
        self.names = list(names)
        spaces = [(name, space) for arm in arms for name, space in arm.items()]
        self.log = {name for name, space in spaces if space.log}
        self.choices = {name for name, space in spaces if space.choices}
        self.label = EXCESS if studies > 1 else LOSS.replace(" (", "\n(")
        self.of_studies = f" of {studies} studies" if studies > 1 else ""

    def places(self, name: str) -> tuple[pd.Series, list[str]]:
        """Return where each suggestion is on an axis, and its words (none if it is a number)."""
        column = self.table[name]
        if pd.api.types.is_numeric_dtype(column):
            return _drawable(column).astype(float), []
        words = sorted(set(column.dropna().astype(str)))
        return column.map(lambda v: words.index(str(v)) if pd.notna(v) else math.nan), words

    def levels(self, name: str) -> list[float]:
        """Return the values of a number that has a tick at each: choices, or few whole numbers."""
        found = sorted(set(self.places(name)[0].dropna()))
        few = 1 < len(found) <= MOST_TICKS
        return found if few and (name in self.choices or self.is_whole(name)) else []

    def is_whole(self, name: str) -> bool:
        """Return whether all values are whole numbers."""
        return all(float(value).is_integer() for value in self.places(name)[0].dropna())


def slices(tried: Tried, columns: int = COLUMNS) -> Figure | None:
    """Draw losses over each setting, a panel each."""
    names = tried.names[:MOST_PANELS]
    if not names:
        return None
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    canvas = Canvas(figsize=(2.9 * columns + 1.4, 2.6 * rows + 0.9), layout="constrained")
    panels = list(canvas.subplots(rows, columns, sharey=True, squeeze=False).flat)
    order = ScalarMappable(Normalize(0, max(int(tried.table["suggestion"].max()), 1)), "viridis")
    finished = tried.table["shown"][tried.table["outcome"] == "finished"]
    low, top = float(finished.min()), ceiling(finished)
    room = 0.06 * (top - low) or 0.01
    panels[0].set_ylim(low - room, top + 2 * room)
    for axes, name in zip(panels, names, strict=False):
        at, words = tried.places(name)
        if words:
            at = at + 0.5 * ((np.arange(len(at)) * GOLDEN) % 1 - 0.5)  # side by side
        _scatter(axes, tried.table, at, order, (top, room))
        axes.set_xlabel(name)
        _set_ticks(axes, tried, name, words)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(tried.label)
    canvas.colorbar(
        order, ax=panels, label="number of the suggestion in its study", pad=0.02,
        ticks=MaxNLocator(6, integer=True),
    )  # fmt: skip
    canvas.suptitle("What the search tried")
    return as_figure("slices", _slices_caption(tried, len(names)), canvas)


def _scatter(
    axes: Axes,
    table: pd.DataFrame,
    at: pd.Series,
    order: ScalarMappable,
    edge: tuple[float, float],
) -> None:
    """Draw a point for each suggestion.

    Args:
        axes: of the panel.
        table: with the column ``shown``.
        at: where they are on the x axis.
        order: colours by the number of a suggestion.
        edge: the highest loss that has a place, and how much room is above it.
    """
    top, room = edge
    finished, stopped, failed = (table["outcome"] == outcome for outcome in MARKS)
    colours = order.to_rgba(table["suggestion"].to_numpy(dtype=float))
    height = table["shown"].clip(upper=top + room)
    axes.scatter(at[finished], height[finished], s=14, c=colours[finished], zorder=3)
    axes.scatter(at[stopped], height[stopped], s=14, c=GREY, marker="x", lw=0.8, alpha=0.6)
    axes.scatter(
        at[failed], np.full(int(failed.sum()), top + 1.6 * room), s=30, c=COLOURS[1],
        marker="|", clip_on=False,
    )  # fmt: skip


def _set_ticks(axes: Axes, tried: Tried, name: str, words: Sequence[str]) -> None:
    """Set the ticks of the x axis: words, levels, or a scale."""
    if words:
        axes.set_xticks(range(len(words)), words)
    elif levels := tried.levels(name):
        set_scale(axes, levels, MOST_TICKS)
    elif name in tried.log:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=tried.is_whole(name)))


def _slices_caption(tried: Tried, panels: int) -> str:
    counts = [
        f"{suggested} {mark}"
        for outcome, mark in MARKS.items()
        if (suggested := int((tried.table["outcome"] == outcome).sum()))
    ]
    text = (
        f"The suggestions{tried.of_studies} over each setting that was chosen: {', '.join(counts)}."
        " The later the lighter. What lies above the frame is drawn at its upper edge."
    )
    if len(tried.names) > panels:
        text += f" {panels} of {len(tried.names)} settings have a panel."
    return text


@dataclass(frozen=True)
class ParallelAxis:
    """An axis among several: where each suggestion is, from 0 to 1, and the ticks."""

    places: pd.Series
    ticks: list[tuple[float, str]]  # height and word


def parallel(tried: Tried) -> Figure | None:
    """Draw each finished suggestion as a line through its settings to its loss."""
    names = tried.names[:MOST_PANELS]
    if len(names) < 2:
        return None
    table = tried.table[tried.table["outcome"] == "finished"]
    table = table.sort_values("shown", ascending=False, kind="stable").tail(MOST_POINTS)
    parts = [*(_axis_of(tried, name, table) for name in names), _loss_axis(table["shown"])]
    lines = np.column_stack([part.places.astype(float) for part in parts])
    canvas = Canvas(figsize=(1.9 * len(parts) + 0.6, 4.2), layout="constrained")
    axes = canvas.subplots()
    _draw_lines(axes, lines)
    for place, part in enumerate(parts):
        axes.axvline(place, color=GREY, lw=1, zorder=4)
        for height, word in part.ticks:
            axes.annotate(
                word, (place, height), (4, 0), textcoords="offset points", fontsize=8, zorder=5,
                va="center", bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.6},
            )  # fmt: skip
    axes.set_xlim(-0.1, len(parts) - 0.6)
    loss = tried.label.partition(" (")[0].partition("\n(")[0]
    axes.set_xticks(range(len(parts)), [*names, loss])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_title("Settings and losses together")
    is_cut = table["shown"].max() > ceiling(table["shown"])
    shows = (
        f"Each line is one of {len(table)} finished suggestions{tried.of_studies}; the darker the"
        f" lower its loss, and the best {BEST:.0%} are in front. A line breaks at a setting without"
        f" effect.{' Losses far out end at the top of their axis.' if is_cut else ''}"
    )
    return as_figure("parallel", shows, canvas)


def _axis_of(tried: Tried, name: str, table: pd.DataFrame) -> ParallelAxis:
    at, words = tried.places(name)
    ends = [float(at.min()), float(at.max())]
    scale = np.log if name in tried.log else np.asarray
    low, high = scale(ends)
    levels = list(range(len(words))) or tried.levels(name) or ends
    heights = ((scale(levels) - low) / (high - low)).tolist()
    ticks = list(zip(heights, words or map(_in_short, levels), strict=True))
    return ParallelAxis((scale(at[table.index]) - low) / (high - low), ticks)


def _loss_axis(losses: pd.Series) -> ParallelAxis:
    low, top = float(losses.min()), ceiling(losses)
    places = ((losses - low) / ((top - low) or 1)).clip(upper=1.0)
    return ParallelAxis(places, [(0.0, number(round(low, 3))), (1.0, number(round(top, 3)))])


def _draw_lines(axes: Axes, lines: Floats) -> None:
    """Draw lines (suggestions x axes), the best ones, which come last, in front."""
    colours = ScalarMappable(Normalize(0, 1), "viridis")
    first_best = len(lines) - max(1, round(BEST * len(lines)))
    faint = 0.7 if len(lines) <= FEW_LINES else 0.25
    for index, line in enumerate(lines):
        in_front = index >= first_best
        axes.plot(
            line, color=colours.to_rgba(0.9 * line[-1]), lw=1.3 if in_front else 0.7,
            alpha=0.9 if in_front else faint, zorder=3 if in_front else 2,
        )  # fmt: skip


def _in_short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.3g}"
