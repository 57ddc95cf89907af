"""The `sweeps` program: all its commands, how it shows mistakes, and its exit codes."""

from __future__ import annotations

import sys

import click

from analysis.text.messages import without_password
from analysis.text.terminal import complain, set_up
from sweeps.cli.decide import decide_command
from sweeps.cli.jobs import logs, resume, status, stop, submit
from sweeps.cli.plan import plan_command
from sweeps.cli.presets import list_presets
from sweeps.cli.run import run_command
from sweeps.cli.store import sample, sync, ui
from sweeps.cli.verify_pack import verify_pack
from sweeps.process import signals
from trainables.errors import UserError, reason_of

RUNNING = (list_presets, plan_command, run_command, decide_command, verify_pack)
ON_A_CLUSTER = (submit, status, logs, stop, resume)
IN_MLFLOW = (sync, ui, sample)


class SweepsGroup(click.Group):
    """Shows a user's mistake in a line or two, without a traceback, and exits with 2."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # nobody reads the output any more: click handles that
            raise
        except (UserError, OSError) as error:
            message = str(error) if isinstance(error, UserError) else reason_of(error)
            complain("sweeps", without_password(message))
            context.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            context.exit(signals.INTERRUPTED)


@click.group(
    cls=SweepsGroup,
    commands=[*RUNNING, *ON_A_CLUSTER, *IN_MLFLOW],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="bigram-sweeps")
def main() -> None:
    """Hyperparameter sweeps for small character language models.

    Exit codes: 0 all trials finished; 1 some failed or are not in MLflow yet, or the sweep had to
    stop; 2 the request is wrong; 130 interrupted.
    """
    set_up("sweeps")
