"""What the results say: from MLflow to tables. Imports none of the other packages."""

from analysis.errors import AnalysisError
from analysis.rankings import markdown, pivot, ranking, tables, write_tables
from analysis.runs import Trials, load_trials, trials_of

__all__ = [
    "AnalysisError",
    "Trials",
    "load_trials",
    "markdown",
    "pivot",
    "ranking",
    "tables",
    "trials_of",
    "write_tables",
]
