"""The commands of sweeps on a cluster: submit, status, logs, stop, resume."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from analysis.terminal import pass_on, say, table
from sweeps.options import state_option
from sweeps.summary import Summary, duration
from trainables.errors import UserError

if TYPE_CHECKING:
    from sweeps.jobs.client import SweepJob

DASHBOARD = "http://127.0.0.1:8265"
EXIT = {"FINISHED": 0, "STOPPED": 130}  # as `sweeps run` has it; all else is 1

address_option = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    default=DASHBOARD,
    show_default=True,
    help="The dashboard of the cluster (RAY_API_SERVER_ADDRESS).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
retry_option = click.option(
    "--retry-failed", is_flag=True, help="Try trials again that failed too often."
)


@click.command()
@click.argument("file")
@click.argument("overrides", nargs=-1)
@click.option("--fail-fast", is_flag=True, help="Stop at the first trial that fails.")
@retry_option
@address_option
@json_option
@state_option
def submit(
    file: str,
    overrides: Sequence[str],
    fail_fast: bool,
    retry_failed: bool,
    address: str,
    as_json: bool,
    state_root: Path,
) -> None:
    """Run FILE (a path or a preset) on a cluster; this machine may leave.

    The sweep file, the overrides, the code as it is here and models of your own travel with it.
    The state directory and the MLflow server are the cluster's.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    from sweeps.jobs.client import Cluster
    from sweeps.plan import make_plan
    from sweeps.spec import find_sweep, preset_files
    from sweeps.state import state_at

    _refuse_passwords(overrides)
    cluster = Cluster(address)  # before the slow part: an address may be wrong
    plan = make_plan(file, overrides, state_at(state_root))
    flags = {"--fail-fast": fail_fast, "--retry-failed": retry_failed}
    arguments = [*overrides, *(flag for flag, is_on in flags.items() if is_on)]
    path = None if file in preset_files() else find_sweep(file)
    _show_started(cluster.submit(plan, path, file, arguments), as_json)


@click.command()
@click.argument("sweep", required=False)
@address_option
@json_option
def status(sweep: str | None, address: str, as_json: bool) -> None:
    """Show the sweeps of a cluster and how far they are; or each submission of SWEEP."""
    from sweeps.jobs.client import Cluster

    cluster = Cluster(address)
    if sweep is None:
        jobs = list({job.sweep: job for job in reversed(cluster.jobs())}.values())[::-1]
    else:
        jobs = cluster.submissions(sweep)
    jobs = [cluster.with_progress(job) for job in jobs]
    if as_json:
        say(json.dumps([job.to_dict() for job in jobs], indent=2))
        return
    columns = ("sweep", "status", "done", "running", "failed", "best", "left", "by", "since", "for")
    say(table(columns, map(_row, jobs)))


@click.command()
@click.argument("sweep")
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until the sweep ends.")
@address_option
@click.pass_context
def logs(context: click.Context, sweep: str, follow: bool, address: str) -> None:
    """Show what SWEEP says on a cluster. Ctrl-C ends this, and not the sweep.

    With -f the exit code is that of the sweep.
    """
    from sweeps.jobs.client import CHANGES_NOTHING, Cluster

    cluster = Cluster(address)
    job = cluster.newest(sweep)
    if not follow:
        pass_on(cluster.logs(job))
        return
    try:
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
def stop(sweep: str, address: str, as_json: bool) -> None:
    """Stop SWEEP on a cluster gently: its trials save themselves first."""
    from sweeps.jobs.client import Cluster

    cluster = Cluster(address)
    job = cluster.with_progress(cluster.stop(cluster.newest(sweep)))
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
def resume(sweep: str, retry_failed: bool, address: str, as_json: bool) -> None:
    """Let SWEEP go on, as it was submitted last; finished trials stay finished."""
    from sweeps.jobs.client import Cluster

    arguments = ["--retry-failed"] if retry_failed else []
    _show_started(Cluster(address).resume(sweep, arguments), as_json)


def _refuse_passwords(overrides: Sequence[str]) -> None:
    """What is written here is shown to all who may ask the cluster for its jobs."""
    for override in overrides:
        path, _, value = override.partition("=")
        if "://" in value and urlsplit(value).password:
            raise UserError(
                f"{path}: a password in an override is seen by others; give it to the machines of"
                " the cluster, as PGPASSWORD or ~/.pgpass, MLFLOW_TRACKING_PASSWORD or AWS's files"
            )


def _show_started(job: SweepJob, as_json: bool) -> None:
    if as_json:
        say(json.dumps(job.to_dict(), indent=2))
        return
    say(f"sent    {job.sweep} (job {job.job})")
    say(f"follow  sweeps logs {job.sweep} -f")
    say(f"stop    sweeps stop {job.sweep}")


def _row(job: SweepJob) -> list[str]:
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
