"""Analysis of results: from MLflow to tables, conclusions and reports.

Losses are in nats per character. ``load_trials`` reads an experiment; its docstring and those of
`configurations`, `conclusions_table`, `contrasts_table`, `evidence_table`, `importance`, `winners`,
`suggestions` and `best_so_far` name the columns of the tables.

    command            the `analysis` command
    command_options    its options, and how it shows mistakes
    folder             folders that users name
    trials             trials, from MLflow or a CSV file
    claims             claims, and their tests on the trials
    results            rankings, winners of a search, settings that mattered
    reports            results in words, and reports
    figures            their figures
    comparison         two models against each other
    statistics         intervals and tests
    anytime            tests that hold at every look
    moderated          tests of cells that share what they know about the variance
    text               what people read and write
    errors             errors that a user can act on
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.claims.claim_file import load_claims
    from analysis.claims.conclusions import Conclusion
    from analysis.claims.evidence import evidence_table
    from analysis.claims.judging import check_claims
    from analysis.claims.tables import conclusions_table, contrasts_table
    from analysis.errors import AnalysisError
    from analysis.results.importances import importance
    from analysis.results.ranking import (
        RANKING_TABLE,
        configurations,
        markdown,
        pivot,
        rankings,
        tables,
        write_ranking,
        write_tables,
    )
    from analysis.results.studies import best_so_far, pareto_front, suggestions, winners
    from analysis.trials.confirmed import judged
    from analysis.trials.loading import load_curves, load_trials, trials_of
    from analysis.trials.table import Trials

HOMES = {  # imported when they are first used: `--help` need not wait for pandas and scipy
    "claims.claim_file": ("load_claims",),
    "claims.conclusions": ("Conclusion",),
    "claims.judging": ("check_claims",),
    "claims.evidence": ("evidence_table",),
    "claims.tables": ("conclusions_table", "contrasts_table"),
    "trials.confirmed": ("judged",),
    "errors": ("AnalysisError",),
    "results.importances": ("importance",),
    "results.ranking": (
        *("RANKING_TABLE", "configurations", "markdown", "pivot", "rankings", "tables"),
        *("write_ranking", "write_tables"),
    ),
    "trials.loading": ("load_curves", "load_trials", "trials_of"),
    "trials.table": ("Trials",),
    "results.studies": ("best_so_far", "pareto_front", "suggestions", "winners"),
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
    "evidence_table",
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


def __getattr__(name: str) -> Any:  # Any: of several types, by name
    if name not in MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)
