"""The options of the `analysis` command, and how it shows mistakes."""

from __future__ import annotations

import errno
from pathlib import Path

import click
from click.core import ParameterSource

from analysis.errors import AnalysisError
from analysis.folder import Folder
from analysis.text.messages import without_password
from analysis.text.shares import LEAST_ERROR, MOST_ERROR
from analysis.text.terminal import complain


class AnalysisGroup(click.Group):
    """A command that prints a user's mistake in one line, without a traceback, and exits with 2."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except AnalysisError as error:
            complain("analysis", without_password(str(error)))
            context.exit(2)
        except OSError as error:  # the folder cannot be written to
            if error.errno == errno.EPIPE:  # nobody reads the output any more: click handles that
                raise
            complain("analysis", f"{error.filename or 'output'}: {error.strerror}")
            context.exit(2)
        except KeyboardInterrupt:
            complain("analysis", "interrupted")
            context.exit(130)


def _refuse_password(
    context: click.Context, parameter: click.Parameter, uri: str | None
) -> str | None:
    """Refuse a URI with a password in a command; what comes from the environment is private."""
    source = context.get_parameter_source(parameter.name or "")
    if uri and source == ParameterSource.COMMANDLINE and without_password(uri) != uri:
        raise AnalysisError(
            f"{parameter.opts[0]}: a password in a command is seen by others; give it by the"
            " environment, as MLFLOW_TRACKING_PASSWORD, PGPASSWORD or ~/.pgpass"
        )
    return uri


experiment_argument = click.argument("experiment")
tracking_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    callback=_refuse_password,
    help="An MLflow store other than the one in the state directory (MLFLOW_TRACKING_URI).",
)
state_option = click.option(
    "--state",
    type=Folder(),
    default=Path("state"),
    envvar="SWEEPS_STATE",
    show_default=True,
    help="The state directory of `sweeps` (SWEEPS_STATE).",
)
out_option = click.option(
    "--out", type=Folder(), help="The folder to write to; STATE/reports/EXPERIMENT by default."
)
claims_option = click.option(
    "--claims",
    type=click.Path(path_type=Path),
    help="A YAML file of claims; by default those of the published study that apply.",
)
anytime_option = click.option(
    "--anytime/--one-look",
    default=None,
    help="Whether verdicts hold at any look, or for one look at a number of seeds that was fixed"
    " beforehand. By default at any look where the sweep stopped by its verdicts, else for one.",
)
error_option = click.option(
    "--error",
    type=click.FloatRange(LEAST_ERROR, MOST_ERROR, max_open=True),
    help="The share of sweeps in which a verdict of --anytime may be wrong; by default that of"
    " `decide` in the sweep, or 0.05.",
)
