"""`sweeps decide`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import click

from sweeps.cli.options import overrides_argument
from sweeps.cli.run import RunOptions, carry_out, run_options
from sweeps.spec.decide_spec import STUDY


@click.command("decide")
@click.argument("file")
@overrides_argument
@click.option(
    "--claims",
    help=f"A file of claims, or `{STUDY}`: those of the published study. By default the claims that"
    " FILE names.",
)
@click.option(
    "--max-seeds",
    type=int,
    help="The most seeds of a configuration.  [default: as FILE says, or 30]",
)
@click.option("--trials", type=int, help="The most trials of the sweep.")
@click.option("--hours", type=float, help="The longest time of training, over all runs.")
@click.option(
    "--error",
    type=float,
    help="The probability that a verdict is wrong, at most.  [default: as FILE says, or 0.05]",
)
@run_options
@click.pass_context
def decide_command(
    context: click.Context,
    file: str,
    overrides: Sequence[str],
    claims: str | None,
    max_seeds: int | None,
    trials: int | None,
    hours: float | None,
    error: float | None,
    **options: Unpack[RunOptions],
) -> None:
    """Train further seeds of a sweep until its claims are decided.

    FILE is a path or a preset. Each configuration begins with three seeds, unless FILE says
    otherwise; further ones go where they decide most. Verdicts hold however often they are looked
    at. Continues from the trials that `sweeps run` or an earlier `sweeps decide` has trained.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    limits = {
        "claims": claims,  # first: a section without claims would be refused
        "max_seeds": max_seeds,
        "trials": trials,
        "hours": hours,
        "error": error,
    }
    given = [f"decide.{name}={value}" for name, value in limits.items() if value is not None]
    carry_out(context, file, [*given, *overrides], options, must_decide=True)
