"""Trials that are evidence: all planned ones; of a tuned sweep the confirmed winners.

Claims are tested on all trials that a sweep planned. A planned trial without a run has a row
without a loss, so that it counts as lost and is not left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.trials.table import METRICS, WAITING, Trials, in_reading_order, of_trials

FEW = 3  # studies that are named in a sentence
TUNED = "tuned"  # the value of a setting that a search chose


@of_trials
def judged(trials: Trials) -> Trials:
    """Return the trials that claims are tested on: all planned ones, and the winner of each study.

    A study is represented by the trials on fresh seeds of its best configuration, which was chosen
    before these seeds were drawn. Tuned settings make no cells: a setting that only trials of
    studies have is dropped, and one that other trials have too reads "tuned". A study without such
    trials has rows without a loss in their place, as has each planned trial without a run. Plain
    trials are kept, but not in the cell of a study; if they have fresh seeds, only those count.

    Returns:
        A sweep without stages; the same trials if there are no studies and nothing waits.

    Raises:
        AnalysisError: the record of the search cannot be read from the sweep's run.
    """
    whole = _as_planned(trials)
    if whole.search is None or not studies_of(whole):
        return whole
    space = whole.search.space
    table = whole.table
    plain = table[table["stage"] == ""]
    winners = pd.concat([first_choices(table), _waiting(whole)])
    fresh = plain["seed"].isin([*whole.search.confirm_seeds, *winners["seed"]])
    if fresh.any():
        plain = plain[fresh]
    for arm, rows in winners.groupby("arm"):
        cell = [name for name in whole.params if name != "seed" and name not in space(arm)]
        plain = plain[~texts(plain, cell).isin(texts(rows, cell))]
    rows, params = _without_tuned(whole, pd.concat([plain, winners]))
    return replace(whole, table=rows.assign(stage=""), params=tuple(params))


def _without_tuned(trials: Trials, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Hide the values of tuned settings in the rows; return rows and the settings that are left."""
    assert trials.search is not None
    space, params = trials.search.space, list(trials.params)
    winners = rows[rows["stage"] != ""]
    for name in trials.search.tuned:
        arms = [arm for arm in winners["arm"].dropna().unique() if name in space(arm)]
        tuned = rows["arm"].isin(arms) & (rows["stage"] != "")
        if name in params and rows.loc[~tuned, name].isna().all():
            rows[name] = rows[name].mask(tuned)
            params.remove(name)
        elif name in params:
            words = [value if pd.isna(value) else str(value) for value in rows[name]]
            rows[name] = pd.Series(words, rows.index, dtype=str).mask(tuned, TUNED)
    return rows, params


def _as_planned(trials: Trials) -> Trials:
    """Return the trials, with a row for each planned one that has no run."""
    rows = _not_begun(trials)
    if rows.empty or trials.planned is None:
        return trials
    used = rows.dropna(axis="columns", how="all")
    more = [str(name) for name in used if name not in trials.table]
    params = in_reading_order([*trials.params, *more])
    table = pd.concat([trials.table, rows[[*trials.table, *more]]])
    return replace(trials, table=table, params=params, planned=trials.planned.iloc[:0])


def _not_begun(trials: Trials) -> pd.DataFrame:
    """Return rows, without a loss, for the planned trials that have no run in MLflow."""
    table, planned = trials.table, trials.planned
    if planned is None or planned.empty:
        return table.iloc[:0]
    winners = first_choices(table)
    begun = set(zip(winners["study"], winners["seed"], strict=True))
    pairs = zip(planned["study"], planned["seed"], strict=True)
    confirms = pd.Series([pair in begun for pair in pairs], planned.index)
    rows = planned[~confirms & ~planned["key"].isin(table["key"].dropna())]
    # If a study chose among arms, the first trial that confirms its winner shows which arm.
    chosen = winners.drop_duplicates("study").set_index("study", drop=False)
    late = rows[rows["study"].isin(chosen.index)]
    settled = chosen.loc[late["study"]].set_index(late.index)
    for name in ("arm", *(name for name in trials.params if name != "seed")):
        late = late.assign(**{name: settled[name]})
    return pd.concat([rows.drop(late.index), late])


def not_begun_note(trials: Trials) -> str:
    """Return how many planned trials have no run, and the remedy; empty if all have one."""
    count = len(_not_begun(trials)) + int((trials.table["status"] == WAITING).sum())
    if not count:
        return ""
    return (
        f"{count} planned {'trial has' if count == 1 else 'trials have'} not begun, or the run was"
        " deleted: a difference of which one is part decides nothing. Run the sweep again to"
        " train what is missing."
    )


def studies_of(trials: Trials) -> set[str]:
    """Return the studies of a sweep, planned ones included."""
    tables = [trials.table] if trials.planned is None else [trials.table, trials.planned]
    return {study for table in tables for study in table["study"]} - {""}


def unconfirmed(trials: Trials) -> list[str]:
    """Return the studies without a finished trial of their winner on a fresh seed."""
    if trials.search is None:
        return []
    whole = first_choices(trials.finished)
    return sorted(studies_of(trials) - set(whole.loc[whole["stopped"] == "", "study"]))


def confirmation_note(trials: Trials) -> str:
    """Return which studies have no confirmed winner, and the remedy; empty if all have one."""
    missing = unconfirmed(trials)
    if not missing or trials.search is None:
        return ""
    named = "; ".join(missing[:FEW]) + ("; ..." if len(missing) > FEW else "")
    remedy = "run the sweep again to train them"
    if not trials.search.confirm_seeds:
        remedy = (
            "set `search.confirm` in the sweep file (such as {top: 1, replicates: 5}) and run it"
        )
    return (
        f"{len(missing)} of {len(studies_of(trials))} studies have no confirmed winner ({named})."
        f" What a search picked looks better than it is, and decides nothing: {remedy}."
    )


def first_choices(table: pd.DataFrame) -> pd.DataFrame:
    """Return the trials on fresh seeds of the configurations that their search ranked first."""
    first = (table["picked"] == 1).fillna(False).astype(bool)
    return table[(table["stage"] == "confirm") & first]


def _waiting(trials: Trials) -> pd.DataFrame:
    """Return rows, without a loss, for each study without a trial of its winner and each seed."""
    assert trials.search is not None
    table = trials.table
    begun = set(first_choices(table)["study"])
    rows = table[(table["study"] != "") & ~table["study"].isin(begun)]
    rows = rows.sort_values(["suggestion", "run_id"]).drop_duplicates("study")
    seeds = trials.search.confirm_seeds or trials.search.seeds
    rows = rows.assign(run_id="", key="", name=rows["study"], status=WAITING)
    rows[list(METRICS)] = np.nan
    rows = pd.concat([rows.assign(seed=seed) for seed in seeds]) if seeds else rows
    first = 1 + int(table.index.max())
    return rows.set_index(pd.RangeIndex(first, first + len(rows)))


def texts(rows: pd.DataFrame, names: list[str]) -> pd.Series[str]:
    """Return the values of some settings as text to compare: a missing value equals another."""
    values = rows[names].astype(object).to_numpy()
    lines = ["\n".join("" if pd.isna(v) else str(v) for v in row) for row in values]
    return pd.Series(lines, rows.index, dtype=str)
