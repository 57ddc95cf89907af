"""What the results say: from MLflow to tables, conclusions and reports.

Losses are in nats per character. ``load_trials`` reads an experiment; its docstring and those of
`configurations`, `conclusions_table`, `contrasts_table`, `importance`, `winners`, `suggestions` and
`best_so_far` name the columns of the tables.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.claims import load_claims
    from analysis.conclusions import Conclusion, check_claims, conclusions_table, contrasts_table
    from analysis.confirmed import judged
    from analysis.errors import AnalysisError
    from analysis.importances import importance
    from analysis.ranking import (
        RANKING_TABLE,
        configurations,
        markdown,
        pivot,
        rankings,
        tables,
        write_ranking,
        write_tables,
    )
    from analysis.runs import Trials, load_curves, load_trials, trials_of
    from analysis.studies import best_so_far, pareto_front, suggestions, winners

HOMES = {  # imported when they are first used: `--help` need not wait for pandas and scipy
    "claims": ("load_claims",),
    "conclusions": ("Conclusion", "check_claims", "conclusions_table", "contrasts_table"),
    "confirmed": ("judged",),
    "errors": ("AnalysisError",),
    "importances": ("importance",),
    "ranking": (
        *("RANKING_TABLE", "configurations", "markdown", "pivot", "rankings", "tables"),
        *("write_ranking", "write_tables"),
    ),
    "runs": ("Trials", "load_curves", "load_trials", "trials_of"),
    "studies": ("best_so_far", "pareto_front", "suggestions", "winners"),
}
MODULES = {name: f"analysis.{module}" for module, names in HOMES.items() for name in names}

__all__ = [
    "RANKING_TABLE",
    "AnalysisError",
    "Conclusion",
    "Trials",
    "best_so_far",
    "check_claims",
    "conclusions_table",
    "configurations",
    "contrasts_table",
    "importance",
    "judged",
    "load_claims",
    "load_curves",
    "load_trials",
    "markdown",
    "pareto_front",
    "pivot",
    "rankings",
    "suggestions",
    "tables",
    "trials_of",
    "winners",
    "write_ranking",
    "write_tables",
]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)
