"""`sweeps run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

import click

from analysis.text.terminal import try_to_say
from sweeps.cli.loading import load_plan
from sweeps.cli.options import (
    overrides_argument,
    retire_option,
    retry_option,
    state_option,
    storage_option,
    tracking_option,
)
from sweeps.process import signals
from sweeps.process.phases import phase
from trainables.errors import UserError

if TYPE_CHECKING:
    from sweeps.cluster.ray_start import RayStart


Command = TypeVar("Command", bound=Callable[..., None])
OPTIONS = (
    click.option("--address", envvar="RAY_ADDRESS", help="A Ray cluster to use (RAY_ADDRESS)."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first trial that fails."),
    *(retry_option, retire_option, tracking_option, storage_option, state_option),
)


class RunOptions(TypedDict):
    """The values of these options."""

    address: str | None  # of a Ray cluster
    fail_fast: bool  # stop at the first trial that fails
    retry_failed: bool  # forget how often trials failed
    retire: bool  # trials with results that are no longer part of the sweep
    tracking_uri: str | None  # of an MLflow store other than the one in the state directory
    storage_uri: str | None  # of the trials' files, if not in the state directory
    state_root: Path  # the state directory


def run_options(command: Command) -> Command:
    """Decorator: give a command the options of `sweeps run`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command("run")
@click.argument("file")
@overrides_argument
@run_options
@click.pass_context
def run_command(
    context: click.Context, file: str, overrides: Sequence[str], **options: Unpack[RunOptions]
) -> None:
    """Train the unfinished trials of a sweep, and rank all of them.

    FILE is a path or a preset. After any interruption, run the same command again: it continues.
    Ctrl-C lets trials save themselves first; a second Ctrl-C ends the command at once.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    carry_out(context, file, overrides, options)


def carry_out(
    context: click.Context,
    file: str,
    overrides: Sequence[str],
    given: RunOptions,
    must_decide: bool = False,
) -> None:
    """Run a sweep, show how it ends, and exit.

    Args:
        context: of the command.
        file: of the sweep, or a preset.
        overrides: of its values.
        given: the options of the command.
        must_decide: refuse a sweep that names no claims.
    """
    from sweeps.spec.sweep_file import load_sweep

    loaded = load_sweep(file)  # reports a mistake in it before Ray starts
    if must_decide and loaded[0].decide is None and not any(map(_names_claims, overrides)):
        raise UserError(f"{loaded[1]} names no claims to decide; give --claims FILE")
    address, state_root = given["address"], given["state_root"]
    ray_start = _start_ray(loaded[0].name, state_root) if address is None else None
    plan = load_plan(file, overrides, state_root, is_here=address is None, loaded=loaded)
    with phase("loading the libraries"):
        from sweeps.cli.outcome import Ending
        from sweeps.execution.run import Options
        from sweeps.execution.service import run_sweep
        from sweeps.records.state import state_at

    options = Options(
        given["tracking_uri"], address, given["fail_fast"], given["retry_failed"],
        given["storage_uri"], given["retire"], ray_start,
    )  # fmt: skip
    try:
        outcome = run_sweep(plan, state_at(state_root), options, try_to_say)
    except KeyboardInterrupt:
        signals.end_process()
    ending = Ending(outcome, plan.sweep, state_root, is_retrying=given["retry_failed"])
    ending.show()
    if outcome.stop.is_cut and not ending.is_complete:
        signals.exit_now(ending.exit_code)
    context.exit(ending.exit_code)


def _names_claims(override: str) -> bool:
    return override.startswith(("decide.claims=", "decide="))


def _start_ray(sweep: str, state_root: Path) -> RayStart | None:
    """Begin to start Ray, which goes on while the sweep is planned.

    Returns:
        None if the sweep is finished, as far as its outbox says, or if this process is not the
        command's own, whose end is the end of Ray too.
    """
    from sweeps.records.outbox_file import OUTBOX
    from sweeps.records.outbox_reader import last_status
    from sweeps.records.state import State

    outbox = State(state_root).sweep(sweep) / OUTBOX
    if not signals.are_watched() or last_status(outbox) == "FINISHED":
        return None
    from sweeps.cluster.ray_environment import prepare_ray

    prepare_ray(None)  # Ray is imported after this
    from sweeps.cluster.ray_start import RayStart

    return RayStart()
