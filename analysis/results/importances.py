"""Importance of each setting for the losses of trials, by Optuna's estimators.

Importance only describes the existing trials; nothing here is a test. A search looks where it
expects low losses, so a setting that it hardly varied looks unimportant.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.errors import AnalysisError, listed
from analysis.results.studies import with_active
from analysis.trials.table import Trials, is_finite, of_trials

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_TRIALS = 20
MOST_TRIALS = 300  # a forest over more takes long
MOST_WORDS = 10  # most text values of a setting: with 16, fANOVA takes minutes
SEED = 0  # of fANOVA's forest
ALL, WITHIN = "all trials", "within studies"
MEANING = {
    "fANOVA": "the share of the variance of val_loss, over all trials, that the setting explains by"
    " itself (a random forest; Hutter et al. 2014)",
    "PED-ANOVA": "how far the setting tells the best tenth from the rest (Watanabe et al. 2023)",
}


@dataclass(frozen=True)
class Sample:
    """Trials that are explained together, and the settings that vary among them."""

    scope: str
    rows: pd.DataFrame  # with val_loss, in nats per character; within studies, less their medians
    settings: tuple[str, ...]
    log: frozenset[str]  # the settings of which ratios matter


@of_trials
def importance(trials: Trials) -> pd.DataFrame:
    """Return the importance of each setting for val_loss.

    Returns:
        One row for each setting: ``scope``: "all trials" explains the losses by all settings;
        "within studies" explains, by the tuned settings, each loss less the median of its study,
        all studies together; ``setting``; ``fANOVA`` and ``PED-ANOVA``, from 0 to 1
        (`MEANING`), each with the sum 1 over the settings that all of these trials have; one that
        only some have is measured among those; ``trials``: on how many.

    Raises:
        AnalysisError: there are fewer than 20 finished trials, or fewer than two settings vary; one
            with more than `MOST_WORDS` words for values does not count.
    """
    found = samples(trials)
    if not found:
        raise AnalysisError(too_little(trials))
    return pd.concat([importances(sample) for sample in found], ignore_index=True)


def too_little(trials: Trials) -> str:
    """Return why there is no importance, if there are no `samples`."""
    rows = _rows(trials)
    return (
        f"importance needs {FEWEST_TRIALS} finished trials and two settings that vary;"
        f" {trials.experiment!r} has {len(rows)} trials, and what varies among them is:"
        f" {listed(_varying(rows, trials.settings), 'nothing')}"
    )


def samples(trials: Trials) -> list[Sample]:
    """Return the samples that can be explained: trials that finished, not stopped early.

    These are the suggestions of a search, or without a search the trials of the grid. Of thousands,
    every n-th is taken.
    """
    rows = _rows(trials)
    tuned = trials.search.tuned if trials.search else ()
    log = frozenset(name for name in trials.settings if _is_log(trials, name))
    wanted = [(ALL, rows, _varying(rows, trials.settings))]
    if "study" in rows and rows["study"].nunique() > 1:
        median = rows.groupby("study")["val_loss"].transform("median")
        several = rows.groupby("study")["val_loss"].transform("size") > 1
        left = rows.assign(val_loss=rows["val_loss"] - median)[several]
        wanted.append((WITHIN, left, _varying(left, [n for n in trials.settings if n in tuned])))
    return [
        Sample(scope, _thinned(some), settings, log)
        for scope, some, settings in wanted
        if len(some) >= FEWEST_TRIALS and len(settings) >= 2
    ]


def importances(sample: Sample) -> pd.DataFrame:
    """Return the rows of `importance` for a sample, the most important setting by fANOVA first."""
    rows, settings = sample.rows, list(sample.settings)
    shared = [name for name in settings if rows[name].notna().all()]
    found = _estimates(rows, shared, sample.log)
    for name in set(settings) - set(shared):
        some = rows[rows[name].notna()]
        there = [n for n in settings if some[n].notna().all() and some[n].nunique() > 1]
        if len(some) >= FEWEST_TRIALS and name in there:
            found.loc[name] = _estimates(some, there, sample.log).loc[name]
    found.insert(0, "scope", sample.scope)
    found["trials"] = [int(rows[name].notna().sum()) for name in found.index]
    found = found.rename_axis("setting").reset_index()
    found = found.sort_values(["fANOVA", "setting"], ascending=[False, True], ignore_index=True)
    return found[["scope", "setting", *MEANING, "trials"]]


def _rows(trials: Trials) -> pd.DataFrame:
    rows = trials.finished[trials.finished["stopped"] == ""]
    suggested = rows[rows["stage"] == "search"]
    if suggested.empty:
        return rows[rows["stage"] == ""].sort_values("run_id")
    if trials.search is None:
        return suggested.sort_values("run_id")
    return with_active(suggested.sort_values(["study", "suggestion", "seed"]), trials.search)


def _varying(rows: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Return the settings that vary, and can be explained."""
    return tuple(name for name in names if rows[name].nunique() > 1 and _is_usable(rows[name]))


def _is_usable(values: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(values):
        return bool(is_finite(values.dropna()).all())
    return values.nunique() <= MOST_WORDS


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_TRIALS)).round().astype(int)
    return rows.iloc[chosen]


def _is_log(trials: Trials, name: str) -> bool:
    """Return whether a setting was searched on a log scale, or else spans a decade or more."""
    values = trials.table[name]
    if not pd.api.types.is_numeric_dtype(values) or not values.min() > 0:
        return False
    spaces = [arm[name] for arm in trials.search.arms if name in arm] if trials.search else []
    if spaces:
        return any(space.log for space in spaces)
    return bool(values.max() / values.min() >= 10)


def _estimates(rows: pd.DataFrame, settings: list[str], log: frozenset[str]) -> pd.DataFrame:
    """Return estimates: columns as in `MEANING`, indexed by setting."""
    if not settings:
        return pd.DataFrame(columns=list(MEANING), dtype=float)
    if rows["val_loss"].nunique() < 2:  # nothing to explain
        return pd.DataFrame(0.0, columns=list(MEANING), index=settings)
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    # PED-ANOVA compares the best trials with all; with fewer than five it is not stable.
    best = max(0.1, 5 / len(rows))
    evaluators = {
        "fANOVA": FanovaImportanceEvaluator(seed=SEED),
        "PED-ANOVA": PedAnovaImportanceEvaluator(target_quantile=best),
    }
    columns = {name: _column(rows[name], name in log) for name in settings}
    spaces = {name: space for name, (_, space) in columns.items()}
    points = zip(*(values for values, _ in columns.values()), strict=True)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for point, loss in zip(points, rows["val_loss"], strict=True):
            params = dict(zip(settings, point, strict=True))
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=spaces, value=loss)
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is experimental, and that losses are all equal
            found = {
                name: optuna.importance.get_param_importances(study, evaluator=evaluator)
                for name, evaluator in evaluators.items()
            }
    finally:
        optuna.logging.set_verbosity(verbosity)
    return pd.DataFrame(found, columns=list(MEANING), index=settings)


def _column(values: pd.Series, log: bool) -> tuple[list[float] | list[str], BaseDistribution]:
    """Return the values of a setting as Optuna should see them, and their range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=float)
        numbers = np.log10(numbers) if log else numbers  # fANOVA knows no logarithms
        return numbers.tolist(), FloatDistribution(float(numbers.min()), float(numbers.max()))
    words = values.astype(str).tolist()
    return words, CategoricalDistribution(sorted(set(words)))
