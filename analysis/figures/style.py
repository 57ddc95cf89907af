"""The style of all figures, and their files: the same data give the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    LogLocator,
    NullLocator,
    StrMethodFormatter,
)

from analysis.figures.data import number
from analysis.text.document import Figure
from analysis.text.terminal import visible

LOSS = "val_loss (nats per character)"
# Okabe and Ito's colours, which colour-blind people tell apart, without the yellow that white
# swallows; a marker and a line style with each, for print without colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 3)), (0, (1, 3)))
GREY = "#555555"
FONT = "DejaVu Sans"  # comes with matplotlib
MOST_LETTERS, MOST_BELOW, MOST_BESIDE = 100, 24, 80  # of a line: in general, of words at an axis
MOST_LINES = 8  # of a text
# Any: matplotlib takes settings of many types.
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.titlesize": 11,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # long enough to show the line style
    "figure.constrained_layout.w_pad": 0.08,  # inches
    "figure.constrained_layout.h_pad": 0.08,
    "lines.markersize": 5,
    # Outlines look the same in every browser and are never cut by a wider font; what text would
    # give, being found and copied, an SVG inside an <img> does not give either.
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "svg.hashsalt": "bigram-sweeps",
}


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of a line or of points."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


def look(index: int) -> Look:
    """Return the look of the label with this index; beyond the colours all look like the last."""
    index = min(index, len(COLOURS) - 1)
    return Look(COLOURS[index], MARKERS[index], LINES[index])


def ordered_look(index: int, levels: int) -> Look:
    """Return the look of a level of a number: the higher the lighter."""
    tone = matplotlib.colormaps["viridis"](0.8 * index / max(levels - 1, 1))
    color = matplotlib.colors.to_hex(tone)
    return Look(color, MARKERS[index % len(MARKERS)], LINES[index % len(LINES)])


@contextmanager
def fixed_style() -> Iterator[None]:
    """Context manager: our settings on matplotlib's defaults, whatever the user's are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def as_figure(name: str, shows: str, canvas: Canvas) -> Figure:
    """Write the picture as SVG and PNG, without dates and versions."""
    for text in canvas.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(drawable(text.get_text()))
    for axes in canvas.axes:
        for axis, most in ((axes.xaxis, MOST_BELOW), (axes.yaxis, MOST_BESIDE)):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FixedFormatter):
                formatter.seq = [drawable(word, most) for word in formatter.seq]
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # it is drawn anyhow
        canvas.draw_without_rendering()
        # What is laid out stays so: the same in both, in half the time.
        canvas.set_layout_engine("none")
        canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        canvas.savefig(png, format="png", metadata={"Software": None})
    return Figure(name, " ".join(shows.split()), svg.getvalue(), png.getvalue())


def drawable(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text as matplotlib can draw it: no formula, no missing letter, not too long."""
    lines = []
    for line in text.split("\n")[:MOST_LINES]:
        known = "".join(
            letter if ord(letter) in _letters() else ascii(letter)[1:-1] for letter in visible(line)
        )
        lines.append(known if len(known) <= most else f"{known[: most - 1]}\N{HORIZONTAL ELLIPSIS}")
    return "\n".join(lines).replace("$", r"\$")


def legible(name: str) -> str:
    """Return a name that a legend shows: matplotlib leaves out those with a leading underscore."""
    return f" {name}" if name.startswith("_") else name


@cache
def _letters() -> frozenset[int]:
    """Return the code points of the letters that the font has."""
    return frozenset(get_font(findfont(FONT)).get_charmap())


def panels(
    rows: int, columns: int, used: int, width: float, height: float
) -> tuple[Canvas, list[Axes]]:
    """Make a grid of panels that share axes, and return those used; sizes in inches."""
    size = (max(columns * width, 5) + 0.6, max(rows * height, 2) + 0.9)
    canvas = Canvas(figsize=size, layout="constrained")
    every = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for index, axes in enumerate(every.flat):
        axes.set_visible(index < used)
        axes.tick_params(labelbottom=index + columns >= used)
    return canvas, list(every.flat[:used])


def name_axes(used: Sequence[Axes], x: str, y: str) -> None:
    """Name the x axis below the lowest panels, and the y axis left of the first ones."""
    for axes in used:
        if axes.xaxis.get_tick_params()["labelbottom"]:
            axes.set_xlabel(x)
        if axes.yaxis.get_tick_params()["labelleft"]:
            axes.set_ylabel(y.replace(" (", "\n("))


def legend_below(canvas: Canvas, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Add a legend below the panels, in as many columns as fit; the picture grows."""
    if len(names) > 1 or any(names):
        longest = min(max(map(len, names)), MOST_LETTERS)
        column = 0.085 * longest + 0.7  # inches: of the letters, and of the line
        columns = min(len(names), max(1, int(canvas.get_figwidth() / column)))
        canvas.set_figheight(canvas.get_figheight() + 0.19 * -(-len(names) // columns))
        canvas.legend(handles, list(map(legible, names)), loc="outside lower center", ncols=columns)


def set_scale(axes: Axes, levels: Sequence[float], most: int = 8) -> str:
    """Let the x axis run over the levels: logarithmic where they are spaced so, a tick at each.

    Returns:
        "log" or "linear".
    """
    low, high = min(levels), max(levels)
    scale = "linear"
    if low > 0 and (_powers_of_two(levels) or high / low >= 30):
        scale = "log"
        axes.set_xscale("log", base=2 if _powers_of_two(levels) else 10)
        room = (high / low) ** 0.08
        axes.set_xlim(low / room, high * room)
    else:
        room = (high - low) * 0.08
        axes.set_xlim(low - room, high + room)
    if len(levels) <= most:
        axes.xaxis.set_major_locator(FixedLocator(list(levels)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(list(levels), [number(level) for level in levels])
    return scale


def set_log_ticks(axes: Axes) -> None:
    """Make the x axis logarithmic, with ticks at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def mean_over(counts: pd.Series) -> str:
    """Return over how many seeds a loss is a mean, in words."""
    low, high = int(counts.min()), int(counts.max())
    if high == 1:
        return "one seed each"
    return f"mean over {high} seeds" if low == high else f"mean over {low} to {high} seeds"


def _powers_of_two(levels: Sequence[float]) -> bool:
    return all(
        level >= 1 and float(level).is_integer() and _one_bit(int(level)) for level in levels
    )


def _one_bit(value: int) -> bool:
    return value & (value - 1) == 0
