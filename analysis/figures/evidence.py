"""Figure of the evidence for and against claims, as trials are added."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import COLOURS, GREY, as_figure, legend_below, legible
from analysis.text.document import Figure

MOST_PANELS = 12
STRONGEST = 1e4  # e-values above are drawn there
SIDES = {  # columns: colour, marker, words
    "e_supports": (COLOURS[0], "o", "for the claim"),
    "e_refutes": (COLOURS[1], "s", "against it"),
}


def evidence_figure(table: pd.DataFrame) -> Figure | None:
    """Draw the e-values of each claim over the trials that it compares; None without claims.

    Args:
        table: from `evidence_table`.
    """
    if table.empty:
        return None
    claims = [(int(str(index)), rows) for index, rows in table.groupby("claim_index")]
    drawn = claims[:MOST_PANELS]
    columns = min(2, len(drawn))
    height = 2.1 * -(-len(drawn) // columns) + 0.8
    canvas = Canvas(figsize=(4.3 * columns, height), layout="constrained")
    panels = canvas.subplots(-(-len(drawn) // columns), columns, sharey=True, squeeze=False)
    for axes, (index, rows) in zip(panels.flat, drawn, strict=False):
        _draw(axes, index, rows)
    for axes in panels.flat[len(drawn) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("e-value")
    for axes in panels.flat[max(0, len(drawn) - columns) : len(drawn)]:
        axes.set_xlabel("trials that the claim compares")
    legend_below(canvas, *panels.flat[0].get_legend_handles_labels())
    decided = sum(rows["verdict"].iloc[-1] != "UNDERPOWERED" for _, rows in claims)
    shows = (
        "The largest e-value so far for each claim and against it, over the trials that it"
        " compares, a point for each seed. A claim is decided when one of them is above the dashed"
        f" line, at any look. Decided: {decided} of {len(claims)}."
    )
    if len(claims) > len(drawn):
        shows += f" The first {len(drawn)} claims are drawn."
    return as_figure("evidence", shows, canvas)


def _draw(axes: Axes, index: int, rows: pd.DataFrame) -> None:
    for column, (color, marker, words) in SIDES.items():
        shown = np.minimum(rows[column], STRONGEST)
        axes.plot(rows["trials"], shown, color=color, marker=marker, ms=3.5, lw=1.3, label=words)
    needed = 1 / float(rows["error"].iloc[0])
    axes.axhline(needed, color=GREY, lw=0.9, ls="--", label=f"decided above {needed:g}")
    axes.set_yscale("log")
    axes.set_ylim(0.8, STRONGEST * 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    claim = textwrap.fill(legible(str(rows["claim"].iloc[-1])), 46, max_lines=2)
    axes.set_title(f"{index}. {claim}\n{rows['verdict'].iloc[-1]}", fontsize=8)
