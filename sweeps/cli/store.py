"""The commands about what MLflow has: sync, ui, sample."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from analysis.text.terminal import in_a_line, pass_on
from analysis.text.terminal import try_to_say as say
from sweeps.cli.options import state_option, storage_option, tracking_option
from trainables.errors import UserError


@click.command()
@click.argument("sweeps", nargs=-1)
@tracking_option
@storage_option
@state_option
@click.pass_context
def sync(
    context: click.Context,
    sweeps: Sequence[str],
    tracking_uri: str | None,
    storage_uri: str | None,
    state_root: Path,
) -> None:
    """Send the results of SWEEPS that MLflow does not have yet.

    Without SWEEPS, send those of all sweeps in the state directory.
    """
    from sweeps.execution.service import sweep_names, sync_sweep
    from sweeps.records.state import state_at

    state = state_at(state_root)
    unsent = 0
    for name in sweeps or sweep_names(state):
        outcome = sync_sweep(name, state, tracking_uri, storage_uri, say)
        reason = in_a_line(outcome.problem)
        say(
            f"{name}: "
            + (f"{outcome.unsent} runs unsent ({reason})" if outcome.unsent else "all sent")
        )
        unsent += outcome.unsent
    context.exit(1 if unsent else 0)


@click.command()
@click.argument("sweep", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@tracking_option
@state_option
def ui(sweep: str | None, port: int, tracking_uri: str | None, state_root: Path) -> None:
    """Serve the MLflow UI on this machine.

    Prints links to the views of SWEEP, or of all sweeps.
    """
    from sweeps.execution.overview import settle_orphans
    from sweeps.process.stopping import interruptible
    from sweeps.records.state import state_at
    from sweeps.server.ui import UiError, mlflow_ui
    from sweeps.tracking.store import mlflow_client, sweep_experiments
    from sweeps.tracking.views import server_address

    state = state_at(state_root)
    uri = tracking_uri or state.tracking_uri
    experiments = sweep_experiments(mlflow_client(uri, must_exist=True), sweep)
    settle_orphans(experiments, state, uri, say)
    if uri.startswith("http"):
        _show_links(server_address(uri), experiments)
        return
    try:
        with (
            interruptible(),
            mlflow_ui(uri, log_file=state.root / "ui.log", port=port) as base_url,
        ):
            _show_links(base_url, experiments)
            say("Ctrl-C ends it.")
            signal.pause()
    except UiError as error:
        raise UserError(str(error)) from None
    except KeyboardInterrupt:
        say("ended")


def _show_links(base_url: str, experiments: Mapping[str, str]) -> None:
    """Print links to the views of sweeps.

    Args:
        base_url: of the MLflow server.
        experiments: their ids, by name of the sweep.
    """
    from sweeps.tracking.views import view_link

    for name, experiment_id in experiments.items():
        for view in ("ranking", "curves"):
            say(f"{name} {view}: {view_link(base_url, experiment_id, view)}")
    say(
        "Open these links: MLflow's home page shows traces of another kind of work, of which there"
        ' are none, until "Model training" is chosen there.'
    )


@click.command()
@click.argument("run")
@click.option(
    "--prompt",
    help="The text to continue; by default a new line, or the first character that the model knows"
    " where it knows no new line.",
)
@click.option("--length", type=click.IntRange(1), default=500, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1337, show_default=True)
@tracking_option
@state_option
def sample(
    run: str,
    prompt: str | None,
    length: int,
    seed: int,
    tracking_uri: str | None,
    state_root: Path,
) -> None:
    """Write text with the model of RUN.

    RUN is an MLflow run id, a trial's key, or SWEEP/best.
    """
    from sweeps.process.stopping import interruptible
    from sweeps.records.state import state_at
    from sweeps.tracking.store import fetch_model, mlflow_client
    from trainables.persistence.artifacts import first_prompt, load_model, sample_text

    uri = tracking_uri or state_at(state_root).tracking_uri
    with interruptible(), tempfile.TemporaryDirectory() as folder:
        found = fetch_model(mlflow_client(uri, must_exist=True), run, Path(folder))
        model, vocabulary, _ = load_model(found)
    prompt = first_prompt(vocabulary) if prompt is None else prompt
    pass_on(f"{prompt}{sample_text(model, vocabulary, prompt, length, seed)}\n")
