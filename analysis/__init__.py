"""What the results say: from MLflow to tables, conclusions and reports.

Losses are in nats per character. ``load_trials`` reads an experiment; its docstring and those of
`configurations`, `conclusions_table` and `contrasts_table` name the columns of the tables.
"""

from analysis.claims import load_claims
from analysis.conclusions import Conclusion, check_claims, conclusions_table, contrasts_table
from analysis.errors import AnalysisError
from analysis.rankings import configurations, markdown, pivot, rankings, tables, write_tables
from analysis.runs import Trials, load_curves, load_trials, trials_of

__all__ = [
    "AnalysisError",
    "Conclusion",
    "Trials",
    "check_claims",
    "conclusions_table",
    "configurations",
    "contrasts_table",
    "load_claims",
    "load_curves",
    "load_trials",
    "markdown",
    "pivot",
    "rankings",
    "tables",
    "trials_of",
    "write_tables",
]
