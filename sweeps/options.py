"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

state_option = click.option(
    "--state",
    "state_root",
    type=click.Path(path_type=Path),
    default=Path("state"),
    envvar="SWEEPS_STATE",
    show_default=True,
    help="The directory of runs, artifacts, checkpoints, corpora and reports (SWEEPS_STATE).",
)
tracking_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    help="An MLflow store other than the one in the state directory (MLFLOW_TRACKING_URI).",
)
