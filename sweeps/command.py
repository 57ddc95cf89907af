"""The `sweeps` command."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from trainables.errors import UserError

INTERRUPTED = 130
TOP = 10

console = Console(soft_wrap=True, highlight=False)


class Group(click.Group):
    """Shows a user's mistake in a line or two, without a traceback, and exits with 2."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except UserError as error:
            print(f"sweeps: {error}".replace("\n", "\n        "), file=sys.stderr)
            context.exit(2)


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


@click.group(cls=Group)
@click.version_option(package_name="bigram-sweeps")
def main() -> None:
    """Hyperparameter sweeps for small character language models.

    Exit codes: 0 all trials finished; 1 some failed; 2 the request is wrong; 130 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="sweeps: %(message)s")
    sys.path.insert(0, os.getcwd())  # a model of your own is imported from here


@main.command("list")
def list_presets() -> None:
    """List the presets."""
    from sweeps.spec import load_sweep, preset_files

    table = Table("preset", "what it does", box=None)
    for name in preset_files():
        sweep, _ = load_sweep(name)
        table.add_row(name, sweep.description)
    console.print(table)


@main.command()
@click.argument("file")
@click.argument("overrides", nargs=-1)
@click.option("--trials", "list_trials", is_flag=True, help="List every trial with its key.")
@state_option
def plan(file: str, overrides: Sequence[str], list_trials: bool, state_root: Path) -> None:
    """Check FILE (a path or a preset), count its trials and estimate their cost; start nothing.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    from sweeps.estimate import estimate
    from sweeps.progress import duration
    from sweeps.resources import concurrency, local_node
    from sweeps.service import make_plan
    from sweeps.state import state_at

    made = make_plan(file, overrides, state_at(state_root))
    at_once = concurrency(made.sweep.resources, [local_node()])
    cost = estimate(made.trials, made.corpus, at_once)
    corpus = made.corpus
    console.print(f"sweep   {made.sweep.name}")
    console.print(
        f"corpus  {corpus.name}: {len(corpus.train) + len(corpus.validation):,} characters,"
        f" {corpus.vocab_size} distinct, sha256 {corpus.digest[:12]}"
    )
    variants = Counter(trial.model.variant for trial in made.trials)
    parts = ", ".join(f"{count} {variant}" for variant, count in variants.items())
    console.print(f"trials  {len(made.trials)} ({parts}), {at_once} at once on this machine")
    console.print(f"varies  {', '.join(made.varying) or 'nothing'}")
    console.print(
        f"takes   about {duration(cost.seconds)} and {cost.memory_bytes / 2**30:.1f} GiB of memory"
        " (from a few timed steps of each shape on this machine's CPU)"
    )
    if list_trials:
        table = Table("key", *made.varying, "about", box=None)
        for trial in made.trials:
            values = [str(trial.flat.get(name, "")) for name in made.varying]
            table.add_row(trial.key, *values, duration(cost.costs[trial.key].seconds))
        console.print(table)


@main.command()
@click.argument("file")
@click.argument("overrides", nargs=-1)
@click.option("--address", envvar="RAY_ADDRESS", help="A Ray cluster to use (RAY_ADDRESS).")
@tracking_option
@state_option
@click.pass_context
def run(
    context: click.Context,
    file: str,
    overrides: Sequence[str],
    address: str | None,
    tracking_uri: str | None,
    state_root: Path,
) -> None:
    """Train every trial of FILE (a path or a preset) that is not finished yet, and rank them.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    from sweeps.service import make_plan, run_sweep
    from sweeps.state import state_at

    state = state_at(state_root)
    made = make_plan(file, overrides, state)
    outcome = run_sweep(made, state, tracking_uri, address, console.print)
    if outcome.ranking is not None:
        _show_ranking(outcome.ranking.head(TOP))
        console.print(f"tables  {outcome.reports}")
    console.print(f"browse  {_command('ui', made.sweep.name, '--state', state_root)}")
    for reason, count in Counter(outcome.failures.values()).items():
        first = next(key for key, why in outcome.failures.items() if why == reason)
        trial = next(trial for trial in made.trials if trial.key == first)
        console.print(f"failed  {count} x {reason}; first: {made.run_name(trial)}", markup=False)
    if outcome.unsent:
        console.print(f"unsent  {outcome.unsent} trials: the MLflow store did not take them")
    if outcome.status == "FINISHED" and not outcome.unsent:
        return
    console.print(f"again   {_command(*sys.argv[1:])}", markup=False)
    context.exit(INTERRUPTED if outcome.status == "KILLED" else 1)


def _command(*arguments: object) -> str:
    """A `sweeps` command that can be pasted into a shell."""
    words = [str(argument) for argument in arguments]
    if words[-2:] == ["--state", "state"]:
        words = words[:-2]
    return shlex.join(["sweeps", *words])


@main.command()
@click.argument("sweep", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@tracking_option
@state_option
def ui(sweep: str | None, port: int, tracking_uri: str | None, state_root: Path) -> None:
    """Serve the MLflow UI on this machine, and print links to the views of SWEEP (or of all)."""
    from sweeps.state import state_at
    from sweeps.store import mlflow_client, sweep_experiments
    from sweeps.ui import UiError, mlflow_ui

    state = state_at(state_root)
    uri = tracking_uri or state.tracking_uri
    experiments = sweep_experiments(mlflow_client(uri, must_exist=True), sweep)
    if uri.startswith("http"):
        _show_links(uri, experiments)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with mlflow_ui(uri, log_file=state.root / "ui.log", port=port) as base_url:
            _show_links(base_url, experiments)
            console.print("Ctrl-C ends it.")
            signal.pause()
    except UiError as error:
        raise UserError(str(error)) from None
    except KeyboardInterrupt:
        console.print("ended")


@main.command()
@click.argument("run")
@click.option("--prompt", default="\n", help="The text to continue; a new line by default.")
@click.option("--length", type=click.IntRange(1), default=500, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1337, show_default=True)
@tracking_option
@state_option
def sample(
    run: str, prompt: str, length: int, seed: int, tracking_uri: str | None, state_root: Path
) -> None:
    """Write text with the model of RUN: an MLflow run id, a trial's key, or SWEEP/best."""
    from sweeps.state import state_at
    from sweeps.store import fetch_model, mlflow_client
    from trainables.artifacts import load_model, sample_text

    uri = tracking_uri or state_at(state_root).tracking_uri
    with tempfile.TemporaryDirectory() as folder:
        found = fetch_model(mlflow_client(uri, must_exist=True), run, Path(folder))
        model, vocabulary, _ = load_model(found)
    print(prompt + sample_text(model, vocabulary, prompt, length, seed))


def _show_ranking(ranking: object) -> None:
    import pandas as pd

    assert isinstance(ranking, pd.DataFrame)
    shown = ranking.drop(columns=["best_val_loss", "training_seconds", "run_id"])
    table = Table(*map(str, shown.columns), box=None)
    for row in shown.itertuples(index=False):
        cells = ["" if pd.isna(cell) else cell for cell in row]
        table.add_row(*(f"{c:.4f}" if isinstance(c, float) else str(c) for c in cells))
    console.print(table)


def _show_links(base_url: str, experiments: dict[str, str]) -> None:
    from sweeps.views import view_link

    for name, experiment_id in experiments.items():
        for view in ("ranking", "curves"):
            console.print(f"{name} {view}: {view_link(base_url, experiment_id, view)}")
