"""All figures of a report that the data allow."""

from __future__ import annotations

import matplotlib
import pandas as pd

from analysis.figures.contrasts import differences
from analysis.figures.data import configurations_to_draw
from analysis.figures.evidence import evidence_figure
from analysis.figures.importance import importance_bars
from analysis.figures.search import search_figures, slices_of
from analysis.figures.settings import heatmap, loss_by
from analysis.figures.style import fixed_style
from analysis.figures.trials import cost, curve_panels
from analysis.results.importances import importances, samples
from analysis.text.document import Figure
from analysis.trials.table import Trials

SEARCH_FIGURES = ("importance", "slices", "parallel", "best_so_far", "pareto")


def figures(
    trials: Trials,
    curves: pd.DataFrame,
    contrasts: pd.DataFrame,
    evidence: pd.DataFrame | None = None,
) -> dict[str, Figure]:
    """Draw what the trials allow: the same data, the same bytes.

    Args:
        trials: of one sweep.
        curves: its learning curves, as `load_curves` gives them; may be empty.
        contrasts: paired differences, which may be none, with the columns ``claim`` and
            ``claim_index`` (the statement, and its number from 1), ``cell`` and ``what`` (where and
            of what, such as "n_embd=64" and "rope - sinpe"), ``mean``, ``low`` and ``high`` (nats
            per character; the bounds are NaN where there is one seed), ``n`` (pairs), ``verdict``,
            ``favoured`` and ``confidence`` (as in `contrasts_table`).
        evidence: from `evidence_table`; None or empty for verdicts of one look.

    Returns:
        By name, in the order of reading: ``loss_by_...``, ``heatmap``, ``evidence``,
        ``differences_1`` and so on, ``curves``, ``cost``; and of a search those of
        `figures_of_search`.
    """
    shown = configurations_to_draw(trials)
    if shown is None:
        return {}
    with fixed_style():
        drawn = [
            loss_by(shown),
            heatmap(shown),
            None if evidence is None else evidence_figure(evidence),
            *differences(contrasts),
            curve_panels(shown, curves),
            cost(shown),
        ]
    named = {figure.name: figure for figure in drawn if figure}
    if (trials.table["stage"] == "search").any():
        named |= figures_of_search(trials)
    return named


def overview_figure(trials: Trials) -> Figure | None:
    """Draw the picture to see first: losses by a setting, by what a search tried, or by cost.

    It is as small as a page needs that shows a picture at its own size. None where fewer than two
    trials have a loss.
    """
    shown = configurations_to_draw(trials)
    if shown is None:
        return None
    with fixed_style():
        matplotlib.rcParams["savefig.dpi"] = 78  # a window of 800 pixels has room for 7.2 inches
        return loss_by(shown, columns=2) or slices_of(trials, columns=2) or cost(shown, width=7.2)


def figures_of_search(trials: Trials, table: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Draw what was tried and what mattered; of a plain sweep only the latter.

    Args:
        trials: of one sweep.
        table: their `importance`, where it is known already.

    Returns:
        By name: those of `SEARCH_FIGURES` that the trials allow.
    """
    if table is None:
        found = [importances(sample) for sample in samples(trials)]
        table = pd.concat(found) if found else pd.DataFrame()
    with fixed_style():
        drawn = [] if table.empty else [importance_bars(table)]
        drawn += [figure for figure in search_figures(trials) if figure]
    return {figure.name: figure for figure in drawn}
