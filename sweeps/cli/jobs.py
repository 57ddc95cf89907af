"""The commands of sweeps on a cluster: submit, status, logs, stop, resume."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from analysis.errors import nearest
from analysis.text.terminal import pass_on, say, table
from sweeps.cli.options import overrides_argument, retire_option, retry_option, state_option
from sweeps.process.summary import Summary, duration
from trainables.errors import UserError

if TYPE_CHECKING:
    from sweeps.cluster.sweep_job import SweepJob

DASHBOARD = "http://127.0.0.1:8265"
EXIT = {"FINISHED": 0, "STOPPED": 130}  # codes by status, as of `sweeps run`; 1 for all others

address_option = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    default=DASHBOARD,
    show_default=True,
    help="The dashboard of the cluster (RAY_API_SERVER_ADDRESS).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")


@click.command()
@click.argument("file")
@overrides_argument
@click.option("--fail-fast", is_flag=True, help="Stop at the first trial that fails.")
@retry_option
@retire_option
@address_option
@json_option
@state_option
def submit(
    file: str,
    overrides: Sequence[str],
    fail_fast: bool,
    retry_failed: bool,
    retire: bool,
    address: str,
    as_json: bool,
    state_root: Path,
) -> None:
    """Run a sweep on a cluster; this machine may be switched off.

    FILE is a path or a preset. The sweep file, the overrides, the code as it is here and models of
    your own travel with it. The state directory and the MLflow server are the cluster's.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    from sweeps.spec.sweep_file import find_sweep, load_sweep, preset_files

    loaded = load_sweep(file)  # reports a mistake in it before the slow part
    from sweeps.cluster.jobs import Cluster, NotThereError
    from sweeps.planning.planner import make_plan
    from sweeps.process.stopping import interruptible
    from sweeps.records.state import state_at

    try:
        cluster = Cluster(address)  # its address may be wrong
    except NotThereError as error:
        raise UserError(f"{error}, or run the sweep here with `sweeps run {file}`") from None
    plan = make_plan(file, overrides, state_at(state_root), loaded=loaded)
    flags = {"--fail-fast": fail_fast, "--retry-failed": retry_failed, "--retire": retire}
    arguments = [*overrides, *(flag for flag, is_on in flags.items() if is_on)]
    path = None if file in preset_files() else find_sweep(file)
    with interruptible():  # it has a temporary folder
        job = cluster.submit(plan, path, file, arguments)
    _show_started(job, as_json)


@click.command()
@click.argument("sweep", required=False)
@address_option
@json_option
@state_option
@click.pass_context
def status(
    context: click.Context, sweep: str | None, address: str, as_json: bool, state_root: Path
) -> None:
    """Show the progress of sweeps, on a cluster or on this machine.

    With SWEEP, show each of its submissions. If no address is given and no cluster on this machine
    has a sweep, show the sweeps of the state directory.
    """
    is_given = context.get_parameter_source("address") is not ParameterSource.DEFAULT
    try:
        jobs = _jobs(address, sweep)
    except UserError as error:
        if is_given:
            raise
        if not _show_local(sweep, state_root, as_json):
            raise UserError(f"{_no_local_sweep(sweep, state_root)}, and {error}") from None
        return
    if not jobs and not is_given and _show_local(sweep, state_root, as_json):
        return
    if as_json:
        say(json.dumps([job.to_dict() for job in jobs], indent=2))
        return
    columns = ("sweep", "status", "done", "running", "failed", "best", "left", "by", "since", "for")
    say(table(columns, map(_row, jobs)))


@click.command()
@click.argument("sweep")
@click.option("-f", "--follow", is_flag=True, help="Show further output until the sweep ends.")
@address_option
@state_option
@click.pass_context
def logs(context: click.Context, sweep: str, follow: bool, address: str, state_root: Path) -> None:
    """Show the output of SWEEP on a cluster. Ctrl-C ends this command, not the sweep.

    With -f the exit code is that of the sweep.
    """
    from sweeps.cluster.jobs import CHANGES_NOTHING, Cluster
    from sweeps.process.stopping import interruptible

    with _hint_at_local_sweep(sweep, state_root):
        cluster = Cluster(address)
        job = cluster.newest(sweep)
    if not follow:
        pass_on(cluster.logs(job))
        return
    try:
        with interruptible():
            for text in cluster.follow(job):
                pass_on(text)
    except KeyboardInterrupt:
        say(CHANGES_NOTHING)
        context.exit(130)
    context.exit(EXIT.get(cluster.wait(job, 0).status, 1))


@click.command()
@click.argument("sweep")
@address_option
@json_option
@state_option
def stop(sweep: str, address: str, as_json: bool, state_root: Path) -> None:
    """Stop SWEEP on a cluster gently.

    Its trials save themselves first.
    """
    from sweeps.cluster.jobs import Cluster

    with _hint_at_local_sweep(sweep, state_root):
        cluster = Cluster(address)
        newest = cluster.newest(sweep)
    job = cluster.with_progress(cluster.stop(newest))
    if as_json:
        say(json.dumps(job.to_dict(), indent=2))
        return
    done = f": {job.progress.done}/{job.progress.total or '?'} done" if job.progress else ""
    say(f"{job.status.lower():7} {sweep}{done}")
    say(f"again   sweeps resume {sweep}")


@click.command()
@click.argument("sweep")
@retry_option
@address_option
@json_option
@state_option
def resume(sweep: str, retry_failed: bool, address: str, as_json: bool, state_root: Path) -> None:
    """Continue SWEEP as it was last submitted.

    Finished trials stay finished.
    """
    from sweeps.cluster.jobs import Cluster

    arguments = ["--retry-failed"] if retry_failed else []
    with _hint_at_local_sweep(sweep, state_root):
        job = Cluster(address).resume(sweep, arguments)
    _show_started(job, as_json)


def _jobs(address: str, sweep: str | None) -> list[SweepJob]:
    """Return the newest submission of each sweep of a cluster, or all of one, with progress."""
    from sweeps.cluster.jobs import Cluster

    cluster = Cluster(address)
    if sweep is None:
        jobs = list({job.sweep: job for job in reversed(cluster.jobs())}.values())[::-1]
    else:
        jobs = cluster.submissions(sweep)
    return [cluster.with_progress(job) for job in jobs]


@contextlib.contextmanager
def _hint_at_local_sweep(sweep: str, state_root: Path) -> Iterator[None]:
    """Context manager: if the cluster has no such sweep, look for it in the state directory.

    Raises:
        NotThereError: as it is raised in the context, if there is no such sweep here either.
        UserError: the sweep is one of this machine; the message says what to do.
    """
    from sweeps.cluster.jobs import NotThereError
    from sweeps.execution.overview import overview
    from sweeps.records.state import state_at

    try:
        yield
    except NotThereError as error:
        by_name = {local.sweep: local for local in overview(state_at(state_root))}
        local = by_name.get(sweep)
        if local is None:
            raise
        remedy = f"`{local.command or 'sweeps run'}` lets it go on"
        if local.status == "RUNNING":
            remedy = "Ctrl-C where it runs stops it"
        raise UserError(
            f"{sweep} is a sweep of this machine, in {state_root}: {local.status}, {local.done} of"
            f" {local.total} trials done; `sweeps status {sweep}` shows it, {remedy}. Of a cluster:"
            f" {error}"
        ) from None


def _no_local_sweep(sweep: str | None, state_root: Path) -> str:
    """Return the message that a state directory has no such sweep, or none at all."""
    from sweeps.execution.service import sweep_names
    from sweeps.records.state import state_at

    names = sweep_names(state_at(state_root))
    if not sweep or not names:
        return f"there is no sweep in {state_root} yet"
    return f"there is no sweep {sweep!r} in {state_root} ({nearest(sweep, names)})"


def _show_local(sweep: str | None, state_root: Path, as_json: bool) -> bool:
    """Show the sweeps of a state directory, or one of them; return whether there are any."""
    from sweeps.execution.overview import in_words, overview
    from sweeps.records.state import state_at

    shown = [local for local in overview(state_at(state_root)) if sweep in (None, local.sweep)]
    if as_json and shown:
        say(json.dumps([local.to_dict() for local in shown], indent=2))
    elif shown:
        rows = [
            (local.sweep, local.status, f"{local.done}/{local.total}", local.failed)
            for local in shown
        ]
        say(table(("sweep", "status", "done", "failed"), rows))
        for local in shown:
            if local.is_orphaned:
                say(f"killed  {in_words(local)}")
    return bool(shown)


def _show_started(job: SweepJob, as_json: bool) -> None:
    """Show a job, and the commands that follow and stop it."""
    if as_json:
        say(json.dumps(job.to_dict(), indent=2))
        return
    say(f"sent    {job.sweep} (job {job.job})")
    say(f"follow  sweeps logs {job.sweep} -f")
    say(f"stop    sweeps stop {job.sweep}")


def _row(job: SweepJob) -> list[str]:
    """Return a job as a row of the table of `sweeps status`."""
    shown = job.progress or Summary(0, None, 0, 0, 0, None, "", "?")
    total = "?" if shown.total is None else shown.total
    return [
        job.sweep,
        job.status,
        f"{shown.done}/{total}" if job.progress else "",
        str(shown.running if job.is_active else 0),
        str(shown.failed),
        "" if shown.best is None else f"{shown.best:.4f}",
        shown.left if job.is_active else "",
        job.user,
        time.strftime("%m-%d %H:%M", time.localtime(job.submitted_ms / 1000)),
        duration(job.seconds),
    ]
