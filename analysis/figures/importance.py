"""Which settings mattered in a search, by Optuna's estimators."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from analysis.document import Figure
from analysis.figures.data import spread
from analysis.figures.style import as_figure
from analysis.runs import Trials

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_TRIALS = 20
MOST_TRIALS = 500  # a forest over more takes minutes
MOST_SETTINGS = 15
SEED = 0
BARS = {"fANOVA": ("#0072B2", ""), "PED-ANOVA": ("#E69F00", "///")}


def importance(trials: Trials) -> Figure | None:
    """Bars for each setting, by two estimators."""
    searched = searched_trials(trials)
    if searched is None:
        return None
    rows, settings = searched
    table = importances(rows, settings).head(MOST_SETTINGS)
    canvas = Canvas(figsize=(7.5, 0.45 * len(table) + 1.6), layout="constrained")
    axes = canvas.subplots()
    for index, (name, (color, hatch)) in enumerate(BARS.items()):
        at = np.arange(len(table)) + (index - 0.5) * 0.36
        axes.barh(at, table[name], 0.34, color=color, hatch=hatch, ec="white", lw=0, label=name)
        for y, value in zip(at, table[name], strict=True):
            axes.annotate(
                f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
    axes.set_yticks(range(len(table)), list(table.index))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(0, 1.1 * float(table.to_numpy().max()))
    axes.set_xlabel("importance for val_loss (sums to 1 for each estimator)")
    axes.set_title("What mattered in the search")
    canvas.legend(loc="outside lower center", ncols=2)
    stopped = int((rows["stopped"] != "").sum())
    shows = (
        f"How far each setting explains val_loss in {len(rows)} trials that the search suggested"
        f"{f', {stopped} of them stopped early' if stopped else ''}: over all of them (fANOVA), and"
        " in telling the best from the rest (PED-ANOVA)."
        " It describes these trials and tests nothing."
    )
    return as_figure("importance", shows, canvas)


def searched_trials(trials: Trials) -> tuple[pd.DataFrame, list[str]] | None:
    """The trials that a search suggested, and the settings that vary among them.

    All of these have all of the settings: of trials with different ones the largest group. None
    where fewer than `FEWEST_TRIALS` trials or two settings are left.
    """
    rows = trials.finished
    rows = rows[(rows["stage"] == "search") & rows["val_loss"].notna()]
    if rows.empty:
        return None
    names = [name for name in trials.settings if rows[name].nunique(dropna=False) > 1]
    has = pd.Series([tuple(row) for row in rows[names].notna().to_numpy()], rows.index)
    rows = rows[has == has.value_counts(sort=True).index[0]]
    settings = [name for name in names if rows[name].nunique() > 1]
    if len(rows) < FEWEST_TRIALS or len(settings) < 2:
        return None
    return rows.iloc[spread(range(len(rows)), MOST_TRIALS)], settings


def importances(rows: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """The share of each setting by fANOVA (Hutter 2014) and PED-ANOVA (Watanabe 2023).

    Returns:
        Columns ``fANOVA`` and ``PED-ANOVA``, each with the sum 1; indexed by setting, the largest
        by fANOVA first.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    spaces = {name: _space(rows[name]) for name in settings}
    best = max(0.1, 5 / len(rows))  # PED-ANOVA asks what tells the best; five at least to be stable
    evaluators = {
        "fANOVA": FanovaImportanceEvaluator(seed=SEED),
        "PED-ANOVA": PedAnovaImportanceEvaluator(target_quantile=best),
    }
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        study.add_trials(
            optuna.trial.create_trial(
                params={name: _plain(row[name]) for name in settings},
                distributions=spaces,
                value=row["val_loss"],
            )
            for row in rows.to_dict("records")
        )
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for name, evaluator in evaluators.items():
                found[name] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return pd.DataFrame(found).sort_values("fANOVA", ascending=False, kind="stable")


def _space(values: pd.Series) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not pd.api.types.is_numeric_dtype(values):
        return CategoricalDistribution(sorted(set(values)))
    low, high = values.min(), values.max()
    log = bool(low > 0 and high / low >= 10)
    if pd.api.types.is_integer_dtype(values):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
