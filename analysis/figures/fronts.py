"""Pareto fronts of noisy measurements."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analysis.figures.data import Configurations, pareto
from analysis.statistics import Floats, t_intervals

SAME_TIME = 0.1  # of a time: machines repeat one no better
MEASURED = ("training_seconds", "val_loss")


def cost_front(shown: Configurations, known: pd.DataFrame) -> pd.DataFrame:
    """Return the configurations that are cheaper or better than others, by more than noise.

    The front starts at the cheapest configuration. Each next one is the cheapest whose loss is
    lower by more than the intervals over seeds; of those that take the same time, the one with
    the lowest loss.

    Args:
        shown: with the trials.
        known: some of its configurations, which have a time.

    Returns:
        Its rows, by training_seconds.
    """
    time, loss = (known[name].to_numpy(dtype=float) for name in MEASURED)
    time_noise, loss_noise = (_half_widths(shown, known, name) for name in MEASURED)
    steps: list[int] = []
    left = np.arange(len(known))
    while len(left):
        first = left[time[left].argmin()]
        same = np.maximum(SAME_TIME * time[first], np.hypot(time_noise[left], time_noise[first]))
        level = left[time[left] - time[first] <= same]
        best = level[loss[level].argmin()]
        steps.append(int(best))
        noise = np.hypot(loss_noise[left], loss_noise[best])
        left = left[loss[best] - loss[left] > noise]
    return pareto(known.iloc[steps], MEASURED)


def _half_widths(shown: Configurations, known: pd.DataFrame, name: str) -> Floats:
    """Return half widths of 95 % intervals over seeds; with one seed the median of the others."""
    rows = shown.rows[shown.rows["configuration"].isin(known.index)]
    values = dict(list(rows.groupby("configuration")[name]))
    found = t_intervals([values[index].dropna().tolist() for index in known.index])
    widths = pd.Series([interval.high - interval.mean for interval in found], known.index)
    usual = widths.median()
    return np.asarray(widths.fillna(0.0 if math.isnan(usual) else usual), dtype=np.float64)
