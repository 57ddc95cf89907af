"""The tables that figures draw, from trials. Losses in nats per character."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from analysis.statistics import t_interval
from analysis.text.document import is_missing
from analysis.trials.confirmed import judged
from analysis.trials.table import Trials, is_finite

MOST_LEVELS = 40  # a number with more values is a continuum: no axis with a tick for each
MOST_FACETS = 16
MOST_LABELS = 8  # as many as there are colours
MOST_POINTS = 100  # of a learning curve
X_FIRST = "block_size"
T = TypeVar("T")
KINDS_OF_MODEL: tuple[str, ...] = ("pe_type", "variant")


@dataclass(frozen=True)
class Configurations:
    """The configurations of a sweep, and the axes to show them on.

    ``table`` has a row for each configuration: its settings, ``label`` (the word that tells it from
    others), ``name`` (label and settings), ``val_loss`` and ``training_seconds`` (means over
    seeds), ``n`` (seeds). Its index is the column ``configuration`` of ``rows``, the trials.

    ``grid`` has the configurations that are drawn over ``x`` in facets, one for each place: if
    several differ in a further setting (``others``), the one with the lowest mean.
    ``references`` have no place there, such as a model without the setting ``x``.
    """

    rows: pd.DataFrame
    table: pd.DataFrame
    labelled_by: str = ""
    x: str = ""  # empty: nothing to draw a line over, and the grid is empty
    facet: str = ""
    others: tuple[str, ...] = ()
    picked_by_a_search: bool = False

    @property
    def grid(self) -> pd.DataFrame:
        """The configurations that have a place on the axes."""
        return self.table[self.table["placed"]]

    @property
    def references(self) -> pd.DataFrame:
        """Configurations without a place, best first; not those that a better one replaced."""
        return self.table[self.table["reference"]].sort_values("val_loss")

    @property
    def labels(self) -> list[str]:
        """All labels: those of the grid first, each part in the order of the alphabet."""
        first = sorted(set(self.grid["label"]))
        return first + sorted(set(self.table["label"]) - set(first))

    def intervals(self, chosen: Iterable[int]) -> pd.DataFrame:
        """Return means with 95 % t intervals over seeds, without bounds (NaN) where there is one.

        Args:
            chosen: configurations; not thousands of them, as each is computed for itself.

        Returns:
            Columns ``mean``, ``low``, ``high``, ``n``, indexed by configuration.
        """
        chosen = list(chosen)
        rows = self.rows[self.rows["configuration"].isin(chosen)]
        losses = dict(list(rows.groupby("configuration")["val_loss"]))
        found = [vars(t_interval(losses[configuration].tolist())) for configuration in chosen]
        return pd.DataFrame(found, index=chosen, columns=["mean", "low", "high", "n"])


def configurations_to_draw(trials: Trials) -> Configurations | None:
    """Group trials that differ only in the seed, and choose axes.

    These are the trials that count as evidence; if there are none, those that a search suggested
    and did not stop early. None if no trial has a loss.
    """
    evidence = judged(trials)
    rows = evidence.comparable
    searched = rows["val_loss"].notna().sum() == 0
    if searched:
        rows = trials.finished[trials.finished["stopped"] == ""]
    else:
        trials = evidence
    rows = rows.dropna(subset="val_loss")
    if rows.empty:
        return None
    settings = [name for name in trials.settings if rows[name].nunique(dropna=False) > 1]
    by = [rows[name] for name in settings] or [pd.Series(0, rows.index)]
    rows = rows.assign(configuration=rows.groupby(by, dropna=False).ngroup())
    groups = rows.groupby("configuration")
    table = rows.drop_duplicates("configuration").set_index("configuration").sort_index()
    table = table[settings].assign(
        val_loss=groups["val_loss"].mean(),
        training_seconds=groups["training_seconds"].mean(),
        n=groups.size(),
        placed=False,
        reference=True,
    )
    labelled_by, table["label"], in_label = _labels(table, settings)
    table["name"] = [describe(row, settings, in_label) for row in table.to_dict("records")]
    found = Configurations(rows, table, labelled_by, picked_by_a_search=searched)
    return found if searched else _placed(found, settings, in_label)


def describe(
    row: Mapping[Hashable, object], settings: Sequence[str], in_label: Sequence[str] = ()
) -> str:
    """Return the label of a configuration, and the settings that the label leaves out."""
    values = [f"{name}={number(row[name])}" for name in settings if name not in in_label]
    parts = [str(row["label"]), *(text for text in values if not text.endswith("="))]
    return " ".join(filter(None, parts))


def number(value: object) -> str:
    """Return a setting as an axis shows it; an empty text for a missing one."""
    if is_missing(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def learning_curves(shown: Configurations, curves: pd.DataFrame) -> pd.DataFrame:
    """Return the losses over the steps, of all seeds of each configuration.

    Steps that not all seeds of a configuration have are left out.

    Args:
        curves: columns ``run_id``, ``step``, ``val_loss``.

    Returns:
        Columns ``configuration``, ``step``, ``mean``, ``low``, ``high`` (the extremes), ``n``.
    """
    points = curves.merge(shown.rows[["run_id", "configuration"]], on="run_id")
    groups = points.dropna().groupby(["configuration", "step"])["val_loss"]
    table = groups.agg(mean="mean", low="min", high="max", n="size").reset_index()
    most = table.groupby("configuration")["n"].transform("max")
    return table[table["n"] == most].reset_index(drop=True)


def thinned(curve: pd.DataFrame, most: int = MOST_POINTS) -> pd.DataFrame:
    """Return at most `most` rows of a curve, with its first and last row."""
    return curve.iloc[spread(range(len(curve)), most)]


def spread(values: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of sorted values, evenly chosen, with both ends."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def pareto(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the Pareto front of rows in two columns, in both of which lower is better.

    Of equal rows the first one stays. Sorted by the first column.
    """
    ordered = table.sort_values(list(columns), kind="stable")
    best_before = ordered[columns[1]].cummin().shift().fillna(np.inf)
    return ordered[ordered[columns[1]] < best_before]


def ceiling(values: Iterable[float]) -> float:
    """Return the largest value that is no outlier.

    An outlier would squeeze the lower three quarters of the values into a tenth of a frame.
    """
    x = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    bulk = float(np.quantile(x, 0.75) - x.min())
    return float(x[x <= x.min() + 10 * bulk].max()) if bulk > 0 else float(x.max())


def _labels(table: pd.DataFrame, settings: Sequence[str]) -> tuple[str, pd.Series, list[str]]:
    """Return the setting that gives the labels, the labels, and the settings that they contain."""
    words = [name for name in settings if not pd.api.types.is_numeric_dtype(table[name])]
    if set(KINDS_OF_MODEL) <= set(words):
        kinds = table.dropna(subset="pe_type").groupby("pe_type")["variant"].nunique()
        labels = table["pe_type"].fillna(table["variant"])
        if (kinds > 1).any():
            labels = (table["variant"] + " " + table["pe_type"]).fillna(table["variant"])
        return "pe_type", labels.fillna("").astype(str), list(KINDS_OF_MODEL)
    known = [name for name in KINDS_OF_MODEL if name in words]
    by: list[str] = known or sorted(words, key=lambda name: -table[name].nunique())
    if not by:
        return "", pd.Series("", table.index), []
    labels = table[by[0]].fillna("").astype(str)
    if by[0] not in KINDS_OF_MODEL:  # "True" alone says nothing
        labels = labels.map(lambda word: f"{by[0]}={word}" if word else "")
    return by[0], labels, [by[0]]


def _placed(
    shown: Configurations, settings: Sequence[str], in_label: Sequence[str]
) -> Configurations:
    """Choose the axes, and the configurations that have a place on them."""
    table = shown.table
    numbers = [
        name
        for name in settings
        if pd.api.types.is_numeric_dtype(table[name]) and is_finite(table[name].dropna()).all()
    ]
    for x in _by_levels(table, numbers, MOST_LEVELS, X_FIRST):
        counts = table.groupby("label")[x].nunique()
        lines = counts[counts > 1].index
        if shown.labelled_by:
            lines = lines.drop("", errors="ignore")  # a missing word is no label
        grid = table[table["label"].isin(lines) & table[x].notna()]
        if not grid.empty:
            break
    else:
        return shown
    best = grid.groupby("label")["val_loss"].min().nsmallest(MOST_LABELS).index
    drawn = grid[grid["label"].isin(best)]
    free = [name for name in numbers if name != x and drawn[name].notna().all()]
    facet = next(iter(_by_levels(drawn, free, MOST_FACETS)), "")
    cell = ["label", x, *([facet] if facet else [])]
    rest = [name for name in settings if name not in (*in_label, *cell)]
    cells = drawn.groupby(cell)
    winners = drawn.sort_values("val_loss", kind="stable").drop_duplicates(cell).index
    table = table.assign(placed=table.index.isin(winners), reference=~table.index.isin(grid.index))
    others = tuple(name for name in rest if cells[name].nunique(dropna=False).max() > 1)
    return Configurations(shown.rows, table, shown.labelled_by, x, facet, others)


def _by_levels(table: pd.DataFrame, names: Iterable[str], most: int, first: str = "") -> list[str]:
    """Return the names with two to `most` values, ``first`` first, then those with most values."""
    levels = {name: table[name].nunique() for name in names}
    fit = [name for name, count in levels.items() if 2 <= count <= most]
    return sorted(fit, key=lambda name: (name != first, -levels[name]))
