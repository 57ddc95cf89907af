"""What a search tried: losses over each setting, and all settings together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from analysis.figures.data import ceiling, number
from analysis.figures.effort import cost_of_search, front
from analysis.figures.style import COLOURS, GREY, LOSS, as_figure, set_scale
from analysis.results.studies import chosen, suggestions
from analysis.text.document import Figure
from analysis.trials.search_record import Space
from analysis.trials.table import Trials, is_finite

MOST_PANELS = 9
MOST_TICKS = 8
COLUMNS = 3
MOST_POINTS = 2_000
FEW_LINES = 50  # that one sees through each other
GOLDEN = 0.618  # whose multiples, less their whole parts, are spread evenly
BEST = 0.1  # of the suggestions are in front
Arm = Mapping[str, Space]
EXCESS = "val_loss above the best\nof its study (nats per character)"


def search_figures(trials: Trials) -> list[Figure | None]:
    """Those of a search, `importance` excepted; None where there is nothing to draw."""
    shown = _shown(trials)
    if shown is None:
        return []
    return [slices(shown), parallel(shown), cost_of_search(trials), front(trials)]


def tried(trials: Trials, columns: int) -> Figure | None:
    """All that a search tried, if it did; with so many columns of panels at most."""
    shown = _shown(trials)
    return slices(shown, columns) if shown else None


def _shown(trials: Trials) -> _Shown | None:
    table = suggestions(trials)
    if table["val_loss"].notna().sum() < 2:
        return None
    names = [name for name in chosen(trials) if _drawable(table[name]).nunique() > 1]
    return _Shown(table, names, trials.search.arms if trials.search else ())


def _drawable(column: pd.Series) -> pd.Series:
    """The words of a setting, or its numbers without those that have no place on an axis."""
    is_number = pd.api.types.is_numeric_dtype(column)
    return column.where(is_finite(column)) if is_number else column


class _Shown:
    """Suggestions, with the column ``shown``: val_loss, or what it lies above its study's best."""

    def __init__(self, table: pd.DataFrame, names: Sequence[str], arms: Sequence[Arm]) -> None:
        best = table.groupby("study")["val_loss"].transform("min")
        self.studies = table["study"].nunique()
        self.zero = best if self.studies > 1 else 0.0
        self.table = table.assign(shown=table["last_loss"] - self.zero)
        self.names = list(names)
        spaces = [(name, space) for arm in arms for name, space in arm.items()]
        self.log = {name for name, space in spaces if space.log}
        self.choices = {name for name, space in spaces if space.choices}
        self.label = EXCESS if self.studies > 1 else LOSS.replace(" (", "\n(")
        self.of = f" of {self.studies} studies" if self.studies > 1 else ""

    def places(self, name: str) -> tuple[pd.Series, list[str]]:
        """Where each suggestion is on an axis, and the words on it (none: it is a number)."""
        column = self.table[name]
        if pd.api.types.is_numeric_dtype(column):
            return _drawable(column).astype(float), []
        words = sorted(set(column.dropna().astype(str)))
        return column.map(lambda v: words.index(str(v)) if pd.notna(v) else math.nan), words

    def levels(self, name: str) -> list[float]:
        """The values of a number that has a tick at each: choices, or few whole numbers."""
        found = sorted(set(self.places(name)[0].dropna()))
        few = 1 < len(found) <= MOST_TICKS
        return found if few and (name in self.choices or self.is_whole(name)) else []

    def is_whole(self, name: str) -> bool:
        """Whether all values are whole numbers."""
        return all(float(value).is_integer() for value in self.places(name)[0].dropna())


def slices(shown: _Shown, columns: int = COLUMNS) -> Figure | None:
    """Losses over each setting, a panel each."""
    names = shown.names[:MOST_PANELS]
    if not names:
        return None
    table = shown.table
    finished, stopped = (table["outcome"] == outcome for outcome in ("finished", "stopped"))
    failed = table["outcome"] == "failed"
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    canvas = Canvas(figsize=(2.9 * columns + 1.4, 2.6 * rows + 0.9), layout="constrained")
    panels = list(canvas.subplots(rows, columns, sharey=True, squeeze=False).flat)
    order = ScalarMappable(Normalize(0, max(int(table["suggestion"].max()), 1)), "viridis")
    low, top = float(table["shown"][finished].min()), ceiling(table["shown"][finished])
    room = 0.06 * (top - low) or 0.01
    panels[0].set_ylim(low - room, top + 2 * room)
    for axes, name in zip(panels, names, strict=False):
        at, words = shown.places(name)
        if words:
            at = at + 0.5 * ((np.arange(len(at)) * GOLDEN) % 1 - 0.5)  # side by side
        colours = order.to_rgba(table["suggestion"].to_numpy(dtype=float))
        height = table["shown"].clip(upper=top + room)
        axes.scatter(at[finished], height[finished], s=14, c=colours[finished], zorder=3)
        axes.scatter(at[stopped], height[stopped], s=14, c=GREY, marker="x", lw=0.8, alpha=0.6)
        axes.scatter(
            at[failed], np.full(int(failed.sum()), top + 1.6 * room), s=30, c=COLOURS[1],
            marker="|", clip_on=False,
        )  # fmt: skip
        axes.set_xlabel(name)
        if words:
            axes.set_xticks(range(len(words)), words)
        elif levels := shown.levels(name):
            set_scale(axes, levels, MOST_TICKS)
        elif name in shown.log:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=shown.is_whole(name)))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(shown.label)
    canvas.colorbar(
        order, ax=panels, label="number of the suggestion in its study", pad=0.02,
        ticks=MaxNLocator(6, integer=True),
    )  # fmt: skip
    canvas.suptitle("What the search tried")
    marks = {
        "finished (dots)": finished,
        "stopped early (crosses, at their last val_loss)": stopped,
        "failed (ticks on top)": failed,
    }
    counts = [f"{int(which.sum())} {mark}" for mark, which in marks.items() if which.any()]
    shows = (
        f"The suggestions{shown.of} over each setting that was chosen: {', '.join(counts)}."
        " The later the lighter. What lies above the frame is drawn at its upper edge."
    )
    if len(shown.names) > len(names):
        shows += f" {len(names)} of {len(shown.names)} settings have a panel."
    return as_figure("slices", shows, canvas)


def parallel(shown: _Shown) -> Figure | None:
    """Each finished suggestion as a line through its settings to its loss."""
    table = shown.table[shown.table["outcome"] == "finished"]
    names = shown.names[:MOST_PANELS]
    if len(names) < 2:
        return None
    table = table.sort_values("shown", ascending=False, kind="stable").tail(MOST_POINTS)
    columns: list[pd.Series] = []
    ticks: list[list[tuple[float, str]]] = []
    for name in names:
        at, words = shown.places(name)
        ends = [float(at.min()), float(at.max())]
        scale = np.log if name in shown.log else np.asarray
        low, high = scale(ends)
        columns.append((scale(at[table.index]) - low) / (high - low))
        levels = list(range(len(words))) or shown.levels(name) or ends
        heights = (scale(levels) - low) / (high - low)
        ticks.append(list(zip(heights.tolist(), words or map(_in_short, levels), strict=True)))
    low, top = float(table["shown"].min()), ceiling(table["shown"])
    columns.append(((table["shown"] - low) / ((top - low) or 1)).clip(upper=1.0))
    ticks.append([(0.0, number(round(low, 3))), (1.0, number(round(top, 3)))])
    lines = np.column_stack([column.astype(float) for column in columns])
    canvas = Canvas(figsize=(1.9 * len(lines[0]) + 0.6, 4.2), layout="constrained")
    axes = canvas.subplots()
    colours = ScalarMappable(Normalize(0, 1), "viridis")
    first_best = len(table) - max(1, round(BEST * len(table)))
    faint = 0.7 if len(lines) <= FEW_LINES else 0.25
    for index, line in enumerate(lines):
        in_front = index >= first_best
        axes.plot(
            line, color=colours.to_rgba(0.9 * line[-1]), lw=1.3 if in_front else 0.7,
            alpha=0.9 if in_front else faint, zorder=3 if in_front else 2,
        )  # fmt: skip
    for place, marks in enumerate(ticks):
        axes.axvline(place, color=GREY, lw=1, zorder=4)
        for height, word in marks:
            axes.annotate(
                word, (place, height), (4, 0), textcoords="offset points", fontsize=8, zorder=5,
                va="center", bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.6},
            )  # fmt: skip
    axes.set_xlim(-0.1, len(ticks) - 0.6)
    axes.set_xticks(range(len(ticks)), [*names, shown.label.partition(" (")[0].partition("\n(")[0]])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_title("Settings and losses together")
    shows = (
        f"Each line is one of {len(table)} finished suggestions{shown.of}; the darker the lower its"
        f" loss, and the best {BEST:.0%} are in front. A line breaks at a setting without effect."
        f"{' Losses far out end at the top of their axis.' if table['shown'].max() > top else ''}"
    )
    return as_figure("parallel", shows, canvas)


def _in_short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.3g}"
