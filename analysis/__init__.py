"""What the results say: from MLflow to tables, conclusions and reports.

Losses are in nats per character. ``load_trials`` reads an experiment; its docstring and those of
`configurations`, `conclusions_table`, `contrasts_table`, `importance`, `winners`, `suggestions` and
`best_so_far` name the columns of the tables.
"""

from analysis.claims import load_claims
from analysis.conclusions import Conclusion, check_claims, conclusions_table, contrasts_table
from analysis.confirmed import judged
from analysis.errors import AnalysisError
from analysis.importance import importance
from analysis.rankings import configurations, markdown, pivot, rankings, tables, write_tables
from analysis.runs import Trials, load_curves, load_trials, trials_of
from analysis.studies import best_so_far, pareto_front, suggestions, winners

__all__ = [
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
    "write_tables",
]
