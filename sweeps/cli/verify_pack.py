"""`sweeps verify-pack`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.text.terminal import try_to_say as say
from sweeps.cli.loading import load_plan
from sweeps.cli.options import overrides_argument, state_option
from sweeps.process.summary import duration
from trainables.errors import UserError

if TYPE_CHECKING:
    from sweeps.execution.verify_pack import PackComparison
    from trainables.config import TrialConfig
    from trainables.data.corpus import Corpus


@click.command("verify-pack")
@click.argument("file")
@overrides_argument
@click.option("--size", type=click.IntRange(2), help="The largest number of trials in a pack.")
@click.option(
    "--packs",
    "most",
    type=click.IntRange(1),
    help="The number of packs to compare, from the first on.",
)
@state_option
@click.pass_context
def verify_pack(
    context: click.Context,
    file: str,
    overrides: Sequence[str],
    size: int | None,
    most: int | None,
    state_root: Path,
) -> None:
    """Train the trials of FILE in packs and alone, and compare.

    The trials are trained on this machine, and nothing is stored. After 10 steps in float64, where
    rounding hides nothing, parameters must agree to 1e-5. Final validation losses must agree to
    0.003 nats, and to 0.0005 on average. Otherwise the exit code is 1.
    """
    plan = load_plan(file, overrides, state_root)
    from sweeps.execution.verify_pack import packs_of, verdict

    packs = packs_of(plan, size)
    if not packs:
        raise UserError(f"{file}: no trial is trained by steps, so there is nothing to pack")
    compared = _compare(plan.corpus, packs[:most], len(packs))
    is_honest, summary = verdict(compared)
    say(f"{'honest' if is_honest else 'OFF':<8}{summary}")
    context.exit(0 if is_honest else 1)


def _compare(
    corpus: Corpus, packs: Sequence[Sequence[TrialConfig]], available: int
) -> list[PackComparison]:
    """Compare packs with their trials alone, and show each as soon as it is compared.

    Args:
        corpus: that the trials train on.
        packs: to compare.
        available: number of packs that the sweep has.
    """
    from sweeps.execution.verify_pack import compare_packs
    from sweeps.planning.estimate import estimate

    trials = [trial for pack in packs for trial in pack]
    takes_s = 2 * estimate(trials, corpus).seconds(1)  # in packs, and alone
    of_all = f" of {available}" if len(packs) < available else ""
    fewer = "; --packs 1 compares one" if len(packs) > 1 else ""
    say(
        f"compare {len(packs)}{of_all} packs, {len(trials)} trials, twice each: about"
        f" {duration(takes_s)} on this machine{fewer}"
    )
    compared: list[PackComparison] = []
    started_s = time.monotonic()
    for pack in compare_packs(corpus, packs):
        compared.append(pack)
        left = len(packs) - len(compared)
        left_s = (time.monotonic() - started_s) / len(compared) * left
        say(_line(pack) + (f" ({left} to go, {duration(left_s)})" if left else ""))
    return compared


def _line(pack: PackComparison) -> str:
    """Describe how far a pack is from its trials alone."""
    first = pack.trials[0]
    name = f"{first.model.variant} {first.flat.get('n_embd', '')}/{first.training.block_size}"
    result = "alone" if pack.problem else "honest" if pack.is_honest else "OFF"
    found = pack.problem or (
        f"parameters {pack.parameters:.1e}, losses within {pack.largest:.5f} nats"
    )
    return f"{result:<8}{name}, {len(pack.trials)} trials: {found}"
