"""Of a tuned sweep, what may be taken for evidence: the winners that fresh seeds confirm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.runs import Trials

FEW = 3  # studies that are named in a sentence


def judged(trials: Trials) -> Trials:
    """The trials as those of a plain sweep: each study is the winner of its search.

    A study is seen by the trials on fresh seeds of the configuration that its search liked best,
    chosen before these seeds were drawn. What was tuned is blank in them, so it makes no cells and
    may differ between configurations that are compared. A study that has none of these trials yet
    has rows without a loss in their place. Plain trials stand beside them, but not in the cell of a
    study, and only those of the fresh seeds where there are such.

    Returns:
        A sweep without stages; the same trials where there are no studies.

    Raises:
        AnalysisError: what the sweep's run says of its search cannot be read.
    """
    if trials.search is None or not (trials.table["study"] != "").any():
        return trials
    table = trials.table
    plain = table[table["stage"] == ""]
    winners = pd.concat([first_choices(table), _waiting(trials)])
    for arm, rows in winners.groupby("arm"):
        names = [name for name in trials.search.space(arm) if name in table]
        winners.loc[rows.index, names] = pd.NA
    rows = pd.concat([plain, winners])
    told = {name for name in trials.search.tuned if name in rows and rows[name].nunique() < 2}
    params = tuple(name for name in trials.params if name not in told)
    fresh = plain["seed"].isin([*trials.search.confirm_seeds, *winners["seed"]])
    if fresh.any():
        plain = plain[fresh]
    cell = [name for name in params if name != "seed"]
    plain = plain[~texts(plain, cell).isin(texts(winners, cell))]
    rows = pd.concat([plain, winners]).assign(stage="")
    return replace(trials, table=rows, params=params)


def unconfirmed(trials: Trials) -> list[str]:
    """The studies without a finished trial of their winner on a fresh seed."""
    if trials.search is None:
        return []
    whole = first_choices(trials.finished)
    studies = trials.table["study"]
    return sorted(set(studies[studies != ""]) - set(whole.loc[whole["stopped"] == "", "study"]))


def confirmation_note(trials: Trials) -> str:
    """What is missing before all studies can be judged, and the remedy; else nothing."""
    missing = unconfirmed(trials)
    if not missing or trials.search is None:
        return ""
    studies = trials.table["study"].replace("", pd.NA).nunique()
    named = "; ".join(missing[:FEW]) + ("; ..." if len(missing) > FEW else "")
    remedy = "run the sweep again to train them"
    if not trials.search.confirm_seeds:
        remedy = (
            "set `search.confirm` in the sweep file (such as {top: 1, replicates: 5}) and run it"
        )
    return (
        f"{len(missing)} of {studies} studies have no confirmed winner ({named}). What a search"
        f" picked looks better than it is, and decides nothing: {remedy}."
    )


def first_choices(table: pd.DataFrame) -> pd.DataFrame:
    """The trials on fresh seeds of the configurations that their search liked best."""
    first = (table["picked"] == 1).fillna(False).astype(bool)
    return table[(table["stage"] == "confirm") & first]


def _waiting(trials: Trials) -> pd.DataFrame:
    """Rows without a loss for the studies that have no trial of a winner, one for each seed."""
    assert trials.search is not None
    table = trials.table
    begun = set(first_choices(table)["study"])
    rows = table[(table["study"] != "") & ~table["study"].isin(begun)].drop_duplicates("study")
    seeds = trials.search.confirm_seeds or trials.search.seeds
    rows = rows.assign(status="WAITING", val_loss=np.nan)
    return pd.concat([rows.assign(seed=seed) for seed in seeds]) if seeds else rows


def texts(rows: pd.DataFrame, names: list[str]) -> pd.Series[str]:
    """What the rows have in some settings, as text to compare: a missing value equals another."""
    values = rows[names].astype(object).to_numpy()
    lines = ["\n".join("" if pd.isna(v) else str(v) for v in row) for row in values]
    return pd.Series(lines, rows.index, dtype=str)
