"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sweeps.spec.passwords import refuse_in_command


class NamedPath(click.Path):
    """A path that is not empty: ``pathlib`` would read an empty one as the working directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        if not str(value):
            self.fail("it is empty; name a directory", param, ctx)
        try:
            return super().convert(value, param, ctx)
        except ValueError:  # a NUL
            self.fail("no file can have this name", param, ctx)


overrides_argument = click.argument("overrides", nargs=-1, callback=refuse_in_command)
state_option = click.option(
    "--state",
    "state_root",
    type=NamedPath(),
    default=Path("state"),
    envvar="SWEEPS_STATE",
    show_default=True,
    help="The directory of runs, artifacts, checkpoints, corpora and reports (SWEEPS_STATE).",
)
retry_option = click.option(
    "--retry-failed", is_flag=True, help="Try trials again that have failed too often."
)
tracking_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    callback=refuse_in_command,
    help="An MLflow store other than the one in the state directory (MLFLOW_TRACKING_URI).",
)
storage_option = click.option(
    "--storage-uri",
    envvar="SWEEPS_STORAGE_URI",
    callback=refuse_in_command,
    help="Where trials keep their files, if not in the state directory: a path that all machines"
    " share, or an fsspec URI such as s3://bucket/prefix (SWEEPS_STORAGE_URI).",
)
retire_option = click.option(
    "--retire",
    is_flag=True,
    help="Drop trials with results that FILE does not describe: their runs stay in MLflow, outside"
    " the rankings.",
)
