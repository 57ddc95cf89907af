"""Tables of the studies of a search: suggestions, winners, and their cost.

Losses are in nats per character, effort in steps (optimizer updates) added over trials.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analysis.statistics import t_interval
from analysis.trials.confirmed import first_choices, texts
from analysis.trials.search_record import NO_SPACE, SearchRecord
from analysis.trials.selection import select
from analysis.trials.table import COSTS, Trials, is_finite, of_trials

OUTCOMES = ("finished", "unfinished", "stopped", "failed")  # of several trials the last one counts
SUGGESTION = [
    *("study", "suggestion", "arm", "outcome", "n", "val_loss", "last_loss", "training_seconds"),
    *(*COSTS, "steps", "full_steps", "run_ids"),
]


@of_trials
def suggestions(trials: Trials) -> pd.DataFrame:
    """Return a row for each suggestion of the search, its seeds taken together.

    Returns:
        One row for each suggestion, by study and number, with the columns

        * ``study``, ``suggestion``, ``arm``, and the tuned settings: missing where another setting
          leaves them without effect;
        * ``outcome``: "finished" if all trials did, "failed" or "stopped" (early) if one did, else
          "unfinished"; ``n``: its trials;
        * ``val_loss``: their mean, missing unless finished; ``last_loss``: the mean of the last
          known, whatever the outcome; ``training_seconds``, ``parameters``, ``training_tokens``:
          means, missing where unknown;
        * ``steps``: trained; of a trial that did not finish, those up to where it was judged last;
          ``full_steps``: those it would have taken without early stopping;
        * ``run_ids``: of its trials.

        Empty where there are no studies.
    """
    rows, names = _searched(trials), chosen(trials)
    columns = [*SUGGESTION[:3], *names, *SUGGESTION[3:]]
    if trials.search is None or rows.empty:
        return pd.DataFrame(columns=columns)
    rows = _with_effort(with_active(rows.sort_values("seed", kind="stable"), trials.search))
    groups = rows.groupby(["study", "suggestion"], dropna=False)
    table = groups[["arm", *names]].first()
    table["outcome"] = groups["outcome"].max().map(OUTCOMES.__getitem__)
    table["n"] = groups.size()
    means = ["last_loss", "training_seconds", *COSTS]
    table[means] = groups[means].mean()
    table["val_loss"] = table["last_loss"].where(table["outcome"] == "finished")
    table[["steps", "full_steps"]] = groups[["steps", "full_steps"]].sum()
    table["run_ids"] = groups["run_id"].agg(" ".join)
    return table.reset_index()[columns]


def _with_effort(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with their outcome (index in OUTCOMES), steps and last loss."""
    whole = (rows["status"] == "FINISHED") & (rows["stopped"] == "")
    whole &= is_finite(rows["val_loss"])
    reached = rows["rung"].fillna(0)
    planned = rows.get("max_steps", reached)
    conditions = [rows["status"] == "FAILED", rows["stopped"] != "", ~whole]
    return rows.assign(
        outcome=np.select(conditions, [3, 2, 1]),
        steps=planned.where(whole, reached).astype(int),
        full_steps=planned.where(rows["status"] == "FINISHED", reached).astype(int),
        last_loss=rows["val_loss"].where(is_finite(rows["val_loss"])),
    )


@of_trials
def winners(trials: Trials) -> pd.DataFrame:
    """Return the winner of each study, and the cost of its search.

    Returns:
        One row for each study, best first: ``study``, the tuned settings of its winner,
        ``search_loss``: the mean val_loss of the winner over its ``search_n`` trials in the search,
        which is optimistic, because the winner was chosen by it;
        ``val_loss``, ``low``, ``high``: its mean on ``n`` fresh seeds with the
        95 % interval (by Student; missing until it is confirmed); ``edges``: which settings lie
        within 5 % of an end of their range; ``suggestions``, and how many of them ``finished``,
        were ``stopped`` or ``failed``; ``steps``: trained in the search; ``full_steps``: without
        early stopping; ``run_ids``: of the confirming trials. A winner is the search's own choice,
        or before there is one the suggestion with the lowest val_loss.
    """
    search, found, names = trials.search, suggestions(trials), chosen(trials)
    if search is None or found.empty:
        return pd.DataFrame()
    fresh = with_active(first_choices(trials.table).sort_values("seed"), search)
    by_study = dict(list(fresh.groupby("study")))
    rows = [
        _winner(search, names, str(study), group, by_study.get(study, fresh[:0]))
        for study, group in found.groupby("study")
    ]
    table = pd.DataFrame(rows).astype({name: found[name].dtype for name in names})
    table = table.sort_values(["val_loss", "search_loss"], ignore_index=True, kind="stable")
    return table.drop(columns=[name for name in names if table[name].isna().all()])


@of_trials
def best_so_far(trials: Trials) -> pd.DataFrame:
    """Return the lowest val_loss of each study so far, and the steps so far, after each suggestion.

    Returns:
        One row for each suggestion, by study and number: ``study``, ``suggestion``, ``outcome``,
        ``steps``: trained by it and all before it, stopped and failed trials included;
        ``val_loss`` of it, missing unless it finished; ``best`` up to it, missing before the first.
    """
    table = suggestions(trials)
    if len(table):
        by_study = table.groupby("study")
        table = table.assign(steps=by_study["steps"].cumsum(), best=by_study["val_loss"].cummin())
        table["best"] = table.groupby("study")["best"].ffill()
    return table.reindex(columns=["study", "suggestion", "outcome", "steps", "val_loss", "best"])


@of_trials
def pareto_front(trials: Trials) -> pd.DataFrame:
    """Return the Pareto front of the finished suggestions.

    No other suggestion is at least as good in all objectives and better in one. Lower is better.

    Returns:
        Columns of `suggestions`, by val_loss; empty where there are fewer than two objectives of
        which the trials know the values.
    """
    table, names = suggestions(trials), objectives(trials)
    if len(names) < 2:
        return table[:0]
    known = table[table["outcome"] == "finished"].dropna(subset=names)
    points = known[names].to_numpy(dtype=float)
    beaten = [
        bool(((points <= point).all(axis=1) & (points < point).any(axis=1)).any())
        for point in points
    ]
    return known[~np.array(beaten, dtype=bool)].sort_values("val_loss", ignore_index=True)


def objectives(trials: Trials) -> list[str]:
    """Return the objectives of the search whose values the trials have."""
    table = suggestions(trials)
    wanted = trials.search.objectives if trials.search else ()
    return [name for name in wanted if name in table and table[name].notna().any()]


def study_tables(trials: Trials) -> dict[str, pd.DataFrame]:
    """Return the tables above by the names of their files, without empty ones."""
    named = {
        "winners": winners(trials),
        "suggestions": suggestions(trials),
        "best_so_far": best_so_far(trials),
        "pareto": pareto_front(trials),
    }
    return {name: table for name, table in named.items() if len(table)}


def with_active(rows: pd.DataFrame, search: SearchRecord) -> pd.DataFrame:
    """Return the trials; tuned settings without effect, given another setting, are blank."""
    rows = rows.copy()
    for arm, of_arm in rows.groupby("arm"):
        for name, space in search.space(arm).items():
            if name in rows and space.when:
                met = select(of_arm, {n: list(v) for n, v in space.when.items() if n in rows})
                rows.loc[of_arm.index.difference(met.index), name] = pd.NA
    return rows


def chosen(trials: Trials) -> list[str]:
    """Return the settings that a study chooses: tuned ones, and those that differ between arms."""
    rows = _searched(trials)
    if trials.search is None or rows.empty:
        return []
    settings = [name for name in trials.params if name != "seed"]
    varies = (rows.groupby("study")[settings].nunique(dropna=False) > 1).any()
    return [name for name in settings if name in trials.search.tuned or varies[name]]


def _searched(trials: Trials) -> pd.DataFrame:
    table = trials.table
    if trials.search is None:
        return table[:0]
    return table[(table["stage"] == "search") & (table["study"] != "")]


def _winner(
    search: SearchRecord, names: list[str], study: str, found: pd.DataFrame, fresh: pd.DataFrame
) -> dict[str, object]:
    """Return a row of `winners`."""
    finished = found[found["outcome"] == "finished"].sort_values(["val_loss", "suggestion"])
    best = finished
    if len(fresh):
        best = finished[texts(finished, names) == texts(fresh, names).iloc[0]]
    shown = (fresh if len(fresh) else best).head(1)
    values = {name: shown[name].iloc[0] if len(shown) else pd.NA for name in names}
    space = search.space(shown["arm"].iloc[0]) if len(shown) else NO_SPACE
    edges = {name: space[name].edge(value) for name, value in values.items() if name in space}
    losses = fresh["val_loss"].astype(float)
    confirmed = t_interval(losses[(fresh["status"] == "FINISHED") & is_finite(losses)])
    outcomes = found["outcome"].value_counts()
    return {
        "study": study,
        **values,
        "search_loss": best["val_loss"].iloc[0] if len(best) else math.nan,
        "search_n": int(best["n"].iloc[0]) if len(best) else 0,
        "val_loss": confirmed.mean,
        "low": confirmed.low,
        "high": confirmed.high,
        "n": confirmed.n,
        "edges": ", ".join(f"{name}: {edge}" for name, edge in edges.items() if edge),
        "suggestions": len(found),
        **{name: int(outcomes.get(name, 0)) for name in ("finished", "stopped", "failed")},
        "steps": int(found["steps"].sum()),
        "full_steps": int(found["full_steps"].sum()),
        "run_ids": " ".join(fresh["run_id"]),
    }
