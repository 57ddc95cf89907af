"""The ranking tables of a sweep, as the published study printed them, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError, listed
from analysis.statistics import Interval, t_intervals
from analysis.text.csv_files import csv_text
from analysis.text.document import markdown_table
from analysis.text.terminal import in_a_line
from analysis.trials.confirmed import judged
from analysis.trials.table import Trials, of_trials

RANKING_TABLE = "ranking.json"
MOST_BYTES = 200  # of the name of a file
LOSSES = ["train_loss", "val_loss", "best_val_loss", "test_loss"]
INTERVAL = ["low", "high"]
DECIMALS = {
    **dict.fromkeys([*LOSSES, *INTERVAL, "search_loss", "last_loss", "best"], 5),
    **dict.fromkeys(["fANOVA", "PED-ANOVA"], 3),
    "difference": 5,
    "training_seconds": 1,
}
STAGES = ("confirm", "", "search")  # as they are read: what was confirmed, what is plain, picks
SHOWN = ["n", "train_loss", "val_loss", *INTERVAL, "best_val_loss"]


@of_trials
def configurations(trials: Trials) -> pd.DataFrame:
    """Return a row for each configuration: its finished trials, which differ only in their seed.

    Returns:
        The settings that differ, and where there was a search ``stage`` and ``picked``, as in
        `Trials` (suggested and confirmed trials are never taken together); ``n``: finished trials,
        each with its own seed; ``train_loss``, ``val_loss``: means, nats per character; ``low``,
        ``high``: the 95 % interval of the mean val_loss (Student), missing if n is 1;
        ``test_loss``: where there is a test split, the mean of the n trials, missing for trials of
        a search;
        ``best_val_loss``: the mean of the lowest val_loss of each trial; ``training_seconds``:
        mean, without evaluation; ``left_out``: trials that failed, were stopped early, or did not
        finish; ``run_ids``: of the n runs in MLflow, by seed.

    Raises:
        AnalysisError: no trial is finished.
    """
    names = _told_apart_by(trials)
    whole = trials.finished[trials.finished["stopped"] == ""]
    if whole.empty:
        raise AnalysisError(f"no trial of {trials.experiment!r} is finished")
    group = pd.Series(0, index=trials.table.index)
    if names:
        group = trials.table.groupby(names, dropna=False).ngroup()
    doubled = whole[pd.concat([group, whole["seed"]], axis=1, join="inner").duplicated()]
    if len(doubled):
        raise AnalysisError(
            f"{trials.experiment}: {doubled['run_id'].iloc[0]} has the settings and the seed of"
            " another trial; seeds tell the trials of a configuration apart"
        )
    planned = group.value_counts()
    groups = list(whole.sort_values("seed").groupby(group[whole.index]))
    intervals = t_intervals([same["val_loss"] for _, same in groups])
    rows = [
        _row(names, same, interval, int(planned[number]) - len(same))
        for (number, same), interval in zip(groups, intervals, strict=True)
    ]
    found = pd.DataFrame(rows).astype({name: trials.table[name].dtype for name in names})
    return found.drop(columns="test_loss") if found["test_loss"].isna().all() else found


def _told_apart_by(trials: Trials) -> list[str]:
    """Return the columns by which configurations differ."""
    names = [*trials.settings, *(["stage"] if trials.table["stage"].any() else [])]
    if "picked" in trials.table and trials.table["picked"].notna().any():
        names.append("picked")
    return names


def _row(
    names: Sequence[str], same: pd.DataFrame, interval: Interval, left_out: int
) -> dict[str, object]:
    """Return a row of `configurations`, from its finished trials by seed."""
    return {
        **{name: same[name].iloc[0] for name in names},
        "n": len(same),
        "train_loss": same["train_loss"].mean(),
        "val_loss": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "test_loss": same["test_loss"].mean(skipna=False),
        "best_val_loss": same["best_val_loss"].mean(),
        "training_seconds": same["training_seconds"].mean(),
        "left_out": left_out,
        "run_ids": " ".join(same["run_id"]),
    }


@of_trials
def rankings(trials: Trials) -> pd.DataFrame:
    """Return all configurations by val_loss, best first, each stage ranked apart.

    First come those confirmed on fresh seeds, then those of no search, then the suggestions of a
    search, whose best would have higher losses with other seeds.

    Returns:
        ``rank`` (from 1 in each stage), then the columns of `configurations`.

    Raises:
        AnalysisError: no trial is finished.
    """
    return _ranked(configurations(trials))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    table = table.sort_values(["val_loss", "run_ids"], ignore_index=True)
    if "stage" not in table:
        table.insert(0, "rank", table.index + 1)
        return table
    table = table.sort_values("stage", key=_reading_order, kind="stable")
    table.insert(0, "rank", table.groupby("stage").cumcount() + 1)
    return table.reset_index(drop=True)


def _reading_order(stages: pd.Series[str]) -> pd.Series[int]:
    return stages.map(lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))


@of_trials
def pivot(trials: Trials, by: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the effect of a setting, all others held fixed.

    Configurations that differ in nothing but ``by`` form a group. Groups are sorted by their best
    val_loss, and so are the rows of a group; a group in which ``by`` does not vary is left out.

    Args:
        trials: from `load_trials`.
        by: the setting.
        table: their `configurations`, where they are known already.

    Returns:
        Columns: the settings that differ, ``by`` last, then ``n``, the losses and the interval, as
        in `configurations`.

    Raises:
        AnalysisError: ``by`` is not a setting that differs; no trial is finished.
    """
    if by not in trials.settings:
        raise AnalysisError(
            f"{by!r} does not differ between the configurations of {trials.experiment!r};"
            f" what differs: {listed(trials.settings, 'nothing')}"
        )
    table = configurations(trials) if table is None else table.copy()
    others = [name for name in table.columns[: table.columns.get_loc("n")] if name != by]
    groups = table.groupby(others, dropna=False) if others else table.groupby(lambda _: 0)
    table["best_of_group"] = groups["val_loss"].transform("min")
    table["group"] = groups.ngroup()
    table = table[groups[by].transform("nunique") > 1]
    table = table.sort_values(["best_of_group", "group", "val_loss"], ignore_index=True)
    return table[[*others, by, *SHOWN]].dropna(axis="columns", how="all")


def level_means(trials: Trials, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the mean val_loss of each level of a setting, all other settings being equal.

    Only groups of `pivot` that have all levels of the setting count, so that the means of its
    levels are over the same other settings.

    Args:
        trials: from `load_trials`.
        table: their `configurations`, where they are known already.

    Returns:
        One row for each level: ``setting``, ``level``, ``val_loss``, and ``n``, the number of
        configurations in the mean. The setting whose levels differ most comes first, and its
        best level first.

    Raises:
        AnalysisError: no trial is finished.
    """
    table = configurations(trials) if table is None else table
    found = [_means_by(pivot(trials, name, table), name) for name in trials.settings]
    found = [means for means in found if len(means)]
    found.sort(key=lambda means: means["val_loss"].iloc[0] - means["val_loss"].iloc[-1])
    empty = pd.DataFrame(columns=["setting", "level", "val_loss", "n"])
    return pd.concat(found, ignore_index=True) if found else empty


def _means_by(pivoted: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the rows of `level_means` for a setting; none where no group has all levels."""
    if pivoted.empty:
        return pivoted
    others = list(pivoted.columns[: pivoted.columns.get_loc("n")])
    others.remove(by)
    groups = pivoted.groupby(others or (lambda _: 0), dropna=False)[by]
    whole = pivoted[groups.transform("nunique") == pivoted[by].nunique()].dropna(subset=by)
    means = whole.groupby(by)["val_loss"].agg(["mean", "size"]).sort_values("mean").reset_index()
    return means.set_axis(["level", "val_loss", "n"], axis="columns").assign(setting=by)


def pivot_settings(trials: Trials) -> list[str]:
    """Return the settings to pivot by: numbers that differ."""
    return [name for name in trials.settings if pd.api.types.is_numeric_dtype(trials.table[name])]


@of_trials
def tables(trials: Trials, by: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
    """Return the ranking and the pivots, by the names of their files.

    The pivots of a search are those of its confirmed winners, once there are some.

    Args:
        trials: from `load_trials`.
        by: the settings to pivot by; None takes `pivot_settings`.
    """
    table = configurations(trials)
    begun = replace(trials, planned=None)  # a trial that never began is not ranked
    evidence = judged(begun)
    if evidence is begun or evidence.comparable.empty:
        evidence, compared = trials, table
    else:
        compared = configurations(evidence)
    settings = pivot_settings(evidence) if by is None else by
    pivots = {f"by_{name}": pivot(evidence, name, compared) for name in settings}
    return {"ranking": _ranked(table)} | {n: table for n, table in pivots.items() if len(table)}


def write_tables(named: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write each table as CSV (all digits) and Markdown (as `markdown` shows it).

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table, stem in zip(named.values(), _file_names(named), strict=True):
        for suffix, text in ((".csv", csv_text(table)), (".md", markdown(table))):
            path = folder / f"{stem}{suffix}"
            path.write_bytes(text.encode("utf-8"))
            written.append(path)
    return written


def _file_names(names: Iterable[str]) -> list[str]:
    """Return a file name for each name of a table, all different."""
    found: list[str] = []
    for name in names:
        stem = in_a_line(name).replace("/", "_").encode()[:MOST_BYTES].decode(errors="ignore")
        while stem in found:
            stem += "_"
        found.append(stem)
    return found


def write_ranking(table: pd.DataFrame, folder: Path) -> None:
    """Write ``ranking.json``, as MLflow shows a table. Missing values are null, not text."""
    text = table.to_json(orient="split", index=False, double_precision=15)
    (folder / RANKING_TABLE).write_text(text, encoding="utf-8")


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown: losses have five decimals; run ids and empty columns go."""
    empty = [name for name in INTERVAL if name in table and table[name].isna().all()]
    if "left_out" in table and not table["left_out"].any():
        empty.append("left_out")
    return markdown_table(table.drop(columns=[*empty, "run_ids"], errors="ignore"), DECIMALS)
