"""Figures of paired differences with their intervals, one for each claim."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from analysis.figures.style import as_figure
from analysis.text.document import Figure, in_short
from analysis.text.shares import percent

MOST_ROWS = 48
KINDS = {  # what an interval says: colour, marker, colour inside
    "below zero": ("#0072B2", "o", "#0072B2"),
    "contains zero": ("#777777", "D", "#ffffff"),
    "above zero": ("#D55E00", "s", "#D55E00"),
    "no interval": ("#000000", "v", "#ffffff"),
}
SIDES = {"negative": "left of", "positive": "right of", "small": "near"}

Row = Mapping[Hashable, Any]  # Any: columns have several types


def differences(contrasts: pd.DataFrame) -> list[Figure]:
    """Draw a forest plot for each claim, named ``differences_1`` and so on."""
    if contrasts.empty:  # without columns, perhaps
        return []
    known = contrasts.dropna(subset="mean")
    return [_forest(rows) for _, rows in known.groupby("claim_index")]


def weakest(rows: pd.DataFrame, most: int = MOST_ROWS) -> pd.DataFrame:
    """Return at most `most` rows, those with the largest means, in their order."""
    rows = rows.reset_index(drop=True)
    return rows.loc[sorted(rows["mean"].nlargest(most).index)]


def kind(low: float, high: float) -> str:
    """Return the kind of an interval, by its bounds: one of `KINDS`."""
    if pd.isna(low) or pd.isna(high):
        return "no interval"
    if high < 0:
        return "below zero"
    return "above zero" if low > 0 else "contains zero"


def _forest(rows: pd.DataFrame) -> Figure:
    index, drawn = int(rows["claim_index"].iloc[0]), weakest(rows)
    title = textwrap.fill(f"Claim {index}: {rows['claim'].iloc[0]}", 90, max_lines=4)
    lines = _lines(drawn)
    height = 0.2 * len(lines) + 0.2 * title.count("\n") + 1.5
    canvas = Canvas(figsize=(9, height), layout="constrained")
    axes = canvas.subplots()
    for at, (_, row) in enumerate(lines):
        if row:
            _interval(axes, at, row)
    axes.axvline(0, color="black", lw=0.9)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), [text for text, _ in lines])
    for label, (_, row) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if row else "bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.08)
    side = SIDES[rows["favoured"].iloc[0]]
    axes.set_xlabel(f"difference of val_loss (nats per character); {side} zero supports the claim")
    canvas.suptitle(title)
    kinds = [kind(row["low"], row["high"]) for _, row in lines if row]
    canvas.legend(handles=_keys(kinds), loc="outside lower center", ncols=4)
    return as_figure(f"differences_{index}", _caption(rows, drawn, kinds), canvas)


def _lines(drawn: pd.DataFrame) -> list[tuple[str, Row | None]]:
    """Return the label of each line and its row; a line without a row is a heading."""
    lines: list[tuple[str, Row | None]] = []
    for what, rows in drawn.groupby("what", sort=False):
        lines.append((str(what), None))
        lines += [(str(row["cell"]), row) for row in rows.to_dict("records")]
    return lines


def _interval(axes: Axes, at: int, row: Row) -> None:
    color, marker, fill = KINDS[kind(row["low"], row["high"])]
    text = in_short(row["mean"], 4, "+")
    if pd.notna(row["low"]):
        axes.plot([row["low"], row["high"]], [at, at], color=color, lw=1.5)
        text += f"  [{in_short(row['low'], 4, '+')}, {in_short(row['high'], 4, '+')}]"
    axes.plot(row["mean"], at, color=color, marker=marker, mfc=fill, ls="")
    axes.annotate(
        text.replace("-", "\N{MINUS SIGN}"), (1, at), (6, 0),
        xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        fontsize=8, annotation_clip=False,
    )  # fmt: skip


def _keys(kinds: list[str]) -> list[Line2D]:
    return [
        Line2D(
            [], [], color=color, marker=marker, mfc=fill, lw=1.5 * (name != "no interval"),
            label=_named(name, kinds)
        )
        for name, (color, marker, fill) in KINDS.items()
        if name in kinds
    ]  # fmt: skip


def _named(name: str, kinds: list[str]) -> str:
    text = name if name == "no interval" else f"interval {name}"
    return f"{text} ({kinds.count(name)})"


def _caption(rows: pd.DataFrame, drawn: pd.DataFrame, kinds: list[str]) -> str:
    low, high = int(rows["n"].min()), int(rows["n"].max())
    pairs = {(1, 1): "one pair"}.get((low, high), f"{low} to {high} pairs")
    if low == high > 1:
        pairs = f"{high} pairs"
    share = f"{percent(rows['confidence'].iloc[0])} %"
    bars = f"bars are {share} intervals of the paired t-test, each for itself"
    if set(kinds) == {"no interval"}:
        bars = "with one seed there is no interval"
    verdicts = sorted(set(rows["verdict"].astype(str)))
    text = f"Differences of val_loss, each the mean of {pairs} of the same seed; {bars}."
    if len(verdicts) == 1:
        text += f" Verdict: {verdicts[0]}."
    if len(drawn) < len(rows):
        text += f" The {len(drawn)} weakest of {len(rows)} differences are drawn."
    return text
