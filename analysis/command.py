"""The `analysis` command."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from analysis.errors import AnalysisError


class Group(click.Group):
    """Shows a user's mistake in a line, without a traceback, and exits with 2."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except AnalysisError as error:
            print(f"analysis: {error}", file=sys.stderr)
            context.exit(2)


@click.group(cls=Group)
@click.version_option(package_name="bigram-sweeps")
def main() -> None:
    """What the results of sweeps say, read from MLflow."""
    logging.basicConfig(level=logging.WARNING, format="analysis: %(message)s")


@main.command()
@click.argument("experiment")
@click.option(
    "--by",
    multiple=True,
    metavar="SETTING",
    help="Pivot by this setting; may be repeated. By default by each number that differs.",
)
@click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    help="An MLflow store other than the one in the state directory (MLFLOW_TRACKING_URI).",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("state"),
    envvar="SWEEPS_STATE",
    show_default=True,
    help="The state directory of `sweeps` (SWEEPS_STATE).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="For the tables; STATE/reports/EXPERIMENT."
)
def rankings(
    experiment: str, by: tuple[str, ...], tracking_uri: str | None, state: Path, out: Path | None
) -> None:
    """Rank the trials of EXPERIMENT (a sweep's name) by val_loss; write CSV and Markdown."""
    from analysis.rankings import markdown, tables, write_tables
    from analysis.runs import load_trials

    database = state.expanduser().absolute() / "mlflow.db"
    if not tracking_uri and not database.exists():
        raise AnalysisError(f"there is no MLflow store at {database}; name it with --state")
    trials = load_trials(experiment, tracking_uri or f"sqlite:///{database}")
    named = tables(trials, list(by) or None)
    for name, table in named.items():
        print(f"## {name}\n\n{markdown(table)}")
    if missing := len(trials.table) - len(trials.finished):
        print(f"not ranked: {missing} trials that are not finished\n")
    for path in write_tables(named, out or state / "reports" / experiment):
        print(path)
