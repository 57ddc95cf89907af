"""The `sweeps` command."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.text.messages import without_password
from analysis.text.terminal import complain, in_a_line, pass_on, set_up, table, try_to_say
from sweeps.cli import jobs
from sweeps.cli.options import (
    overrides_argument,
    retire_option,
    state_option,
    storage_option,
    tracking_option,
)
from sweeps.process import signals
from sweeps.process.phases import phase
from sweeps.process.summary import duration
from trainables.errors import UserError, reason_of

if TYPE_CHECKING:
    from sweeps.execution.service import Outcome
    from sweeps.planning.estimate import Estimate
    from sweeps.planning.plan import Plan
    from sweeps.records.records import TrialRecord
    from trainables.persistence.storage import Storage

AGAIN = "SWEEPS_AGAIN"  # names the command that lets the sweep go on, where it is not this one
TOP = 10
WIDE = 9  # columns: of a wider table those are left out that are the same in all its rows
BUSY = 1.3  # times the shortest step: what a machine with other work takes
NUMBER = re.compile(r"-?\b(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf)\b")


class Group(click.Group):
    """Shows a user's mistake in a line or two, without a traceback, and exits with 2."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # nobody reads on, which click knows
            raise
        except (UserError, OSError) as error:
            said = str(error) if isinstance(error, UserError) else reason_of(error)
            complain("sweeps", without_password(said))
            context.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            context.exit(signals.INTERRUPTED)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bigram-sweeps")
def main() -> None:
    """Hyperparameter sweeps for small character language models.

    Exit codes: 0 all trials finished; 1 some failed or are not in MLflow yet, or the sweep had to
    stop; 2 the request is wrong; 130 interrupted.
    """
    set_up("sweeps")


@main.command("list")
def list_presets() -> None:
    """List the presets."""
    from sweeps.spec.sweep_file import load_sweep, preset_files

    presets = ((name, load_sweep(name)[0].description) for name in preset_files())
    _say(table(["preset", "what it does"], presets))


@main.command()
@click.argument("file")
@overrides_argument
@click.option("--trials", "list_trials", is_flag=True, help="List every trial with its key.")
@state_option
def plan(file: str, overrides: Sequence[str], list_trials: bool, state_root: Path) -> None:
    """Check a sweep and estimate its cost; start nothing.

    FILE is a path or a preset. Counts its trials, and says how long they take on this machine.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    made = _plan(file, overrides, state_root, is_here=True)
    from sweeps.execution.overview import done_of
    from sweeps.planning.earlier import earlier_here
    from sweeps.planning.estimate import estimate
    from sweeps.planning.forecast import SearchForecast
    from sweeps.records.state import state_at
    from sweeps.resources.gpus import largest, measured_here, pack_sizes_here, settle
    from sweeps.resources.nodes import concurrency, local_node
    from sweeps.resources.packs import settle_packs

    corpus, nodes, state = made.corpus, [local_node()], state_at(state_root)
    done = done_of(made, state)
    concurrency(made.sweep.resources.settled(0), nodes)  # refused before anything is timed
    with phase("timing some steps of the trials"):
        coming = SearchForecast.of(made, done.to_come(made))
        cost = estimate(done.left(made), corpus, coming, earlier_here(state), made.trials)
    shapes = largest((*made.trials, *made.examples), cost)
    resources, why = settle(made.sweep.resources, nodes, lambda: measured_here(shapes, corpus))
    at_once = concurrency(resources, nodes)
    _say(f"sweep   {made.sweep.name}")
    _say(
        f"corpus  {corpus.name}: {len(corpus.train) + len(corpus.validation):,} characters,"
        f" {corpus.vocab_size} distinct, sha256 {corpus.digest[:12]}"
    )
    for warning in made.warnings:
        _say(f"warning {in_a_line(warning)}")
    variants = Counter(trial.model.variant for trial in made.trials)
    parts = [f"{count} {variant}" for variant, count in variants.items()]
    if made.studies:
        parts.append(f"{'?' if made.to_come is None else made.to_come} of the search")
    total = len(made.trials) + (made.to_come or 0)
    _say(f"trials  {total} ({', '.join(parts)}), {at_once} at once on this machine")
    if done.in_words:
        _say(f"done    {done.in_words}")
    if made.studies:
        _show_search(made)
    else:
        _say(f"varies  {', '.join(made.varying) or 'nothing'}")
    packs = settle_packs(
        made,
        resources,
        total,
        at_once,
        lambda most: pack_sizes_here(shapes, most, corpus, resources.gpus),
    )
    trials = made.trials or made.examples
    if said := packs.in_words(trials):
        _say(f"packs   {said}")
    if why:
        _say(f"gpu     {why} (here; a cluster's GPUs are measured when a sweep starts)")
    is_left = cost.work_s or made.to_come is None
    takes = _takes(made, cost, at_once) if is_left else "nothing: all trials are done"
    _say(f"takes   {takes}")
    _say(
        f"needs   {cost.memory_bytes(at_once, packs.largest(trials)) / 2**30:.1f} GiB of memory and"
        f" {cost.disk_bytes / 2**20:,.0f} MiB of disk"
    )
    if list_trials:
        listed = []
        for trial in made.trials:
            values = [trial.flat.get(name, "") for name in made.varying]
            listed.append((trial.key, *values, duration(cost.costs[trial.key].seconds)))
        _say(table(["key", *made.varying, "about"], listed))


def _plan(file: str, overrides: Sequence[str], state_root: Path, is_here: bool = False) -> Plan:
    """The plan of a sweep file; a mistake in the file is told before torch is loaded."""
    from sweeps.spec.sweep_file import load_sweep

    loaded = load_sweep(file)
    with phase("checking the sweep"):
        from sweeps.planning.planner import make_plan
        from sweeps.records.state import state_at

        return make_plan(file, overrides, state_at(state_root), is_here, loaded)


def _takes(made: Plan, cost: Estimate, at_once: int) -> str:
    """Say how long a sweep will take on this machine, and how that is known."""
    hours = made.sweep.search.hours
    if made.to_come is None:
        limit = f"at most {hours:g} h of searching" if hours else "as long as something improves"
        return f"{limit}; a trial about {duration(cost.mean_s)} ({cost.basis})"
    low_s, high_s = cost.range_s(at_once)
    said = f"about {duration(cost.seconds(at_once))} ({duration(low_s)} to {duration(high_s)})"
    limit = f"; at most {hours:g} h of it searching" if hours and made.studies else ""
    busy = "; this machine is busy now" if cost.busy > BUSY else ""
    return f"{said} on this machine's CPU, {cost.basis}{limit}{busy}"


def _show_search(made: Plan) -> None:
    """What a search compares, tunes and leaves as it is, and how long it looks."""
    from trainables.config import canonical

    search, studies = made.sweep.search, made.studies
    limits = {"suggestions": search.budget, "hours": search.hours}
    said = [f"{limit:g} {what}" for what, limit in limits.items() if limit is not None]
    if search.patience is not None:
        said.append(f"until {search.patience} in a row improve nothing")
    seeds = f", each with {len(made.sweep.seeds)} seeds" if len(made.sweep.seeds) > 1 else ""
    _say(
        f"search  {' or '.join(said)}{seeds}; sampler {search.sampler}, early stopping"
        f" {search.early.rule}, minimises {' and '.join(search.objectives)}"
    )
    if search.confirm is not None:
        fresh = len(made.sweep.confirm_seeds)
        _say(f"confirm the best {search.confirm.top} of each study with {fresh} new seeds")
    compared = [name for name in made.varying if name not in (*made.tuned, "seed")]
    same = {n: v for n, v in made.examples[0].flat.items() if n not in (*made.varying, *made.tuned)}
    _say(f"studies {len(studies)}, one for each of: {', '.join(compared) or 'the sweep'}")
    _say(f"tuned   {', '.join(made.tuned)}")
    for label, size in made.sizes.items():
        _say(f"        {label} has {size} configurations in all")
    for name, parameter in made.shortened.items():
        _say(
            f"        {name} from {parameter.low} by {parameter.step} reaches {parameter.highest},"
            f" not {parameter.high}"
        )
    _say(f"fixed   {', '.join(f'{n}={canonical(v)}' for n, v in same.items())}")


@main.command()
@click.argument("file")
@overrides_argument
@click.option("--address", envvar="RAY_ADDRESS", help="A Ray cluster to use (RAY_ADDRESS).")
@click.option("--fail-fast", is_flag=True, help="Stop at the first trial that fails.")
@click.option("--retry-failed", is_flag=True, help="Try trials again that failed too often.")
@retire_option
@tracking_option
@storage_option
@state_option
@click.pass_context
def run(
    context: click.Context,
    file: str,
    overrides: Sequence[str],
    address: str | None,
    fail_fast: bool,
    retry_failed: bool,
    retire: bool,
    tracking_uri: str | None,
    storage_uri: str | None,
    state_root: Path,
) -> None:
    """Train what is not finished of a sweep, and rank its trials.

    FILE is a path or a preset. What was interrupted goes on, whatever interrupted it: run the same
    command again. Ctrl-C stops gently, a second one at once.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    again = os.environ.get(AGAIN) or shlex.join(["sweeps", *sys.argv[1:]])
    made = _plan(file, overrides, state_root, is_here=address is None)
    with phase("loading the libraries"):
        from sweeps.execution.service import Options, run_sweep
        from sweeps.records.state import state_at

    state = state_at(state_root)
    options = Options(tracking_uri, address, fail_fast, retry_failed, storage_uri, retire)
    try:
        outcome = run_sweep(made, state, options, _say)
    except KeyboardInterrupt:
        signals.leave()
    if outcome.ranking is not None:
        _show_ranking(outcome.ranking.head(TOP))
        for line in outcome.means:
            _say(f"means   {line}")
        _say(f"tables  {outcome.reports}")
    elif outcome.unranked:
        _say(f"tables  there are none: {in_a_line(outcome.unranked)}")
    store = [] if outcome.uri == state.tracking_uri else ["--tracking-uri", outcome.uri]
    if without_password(outcome.uri) != outcome.uri:  # it is in the environment there, too
        store = []
    if not outcome.unsent:
        _say(f"browse  {_browse(made.sweep.name, outcome, store, state_root)}")
    if outcome.means and outcome.status != "KILLED":
        asks = "is that chance?" if len(made.sweep.seeds) > 1 else "chance? One seed cannot tell"
        judge = _command("analysis", "conclusions", made.sweep.name, *store, "--state", state_root)
        _say(f"next    {judge}  # {asks}")
    _show_faults(outcome)
    if outcome.failed:
        _show_failures(outcome.failed, outcome.storage)
        limit = made.sweep.resources.max_failures
        retried = [record for record in outcome.failed if not record.is_suggested]
        if all(record.failures >= limit for record in retried) and retried and not retry_failed:
            again += " --retry-failed"
    for line in outcome.exhausted:
        _say(f"search  {in_a_line(line)}")
    if outcome.fruitless and outcome.status == "FAILED":
        _say(f"search  no trial was finished in: {in_a_line('; '.join(outcome.fruitless))}")
    if outcome.unsent:
        sync = _command("sweeps", "sync", made.sweep.name, *store, "--state", state_root)
        why = in_a_line(outcome.problem)
        _say(f"unsent  {outcome.unsent} runs are not in MLflow yet, they are kept ({why})")
        _say(f"send    {os.environ.get(AGAIN) or sync}")
    if outcome.status == "FINISHED" and not outcome.stop.is_interrupted:
        context.exit(1 if outcome.unsent or outcome.unranked else 0)
    if outcome.status == "KILLED":
        _say(f"stopped before the end: {in_a_line(outcome.stop.message or outcome.stop.cause)}")
    _say(f"again   {again}")
    code = signals.INTERRUPTED if outcome.stop.cause in ("interrupted", "lost") else 1
    if outcome.stop.is_cut:
        signals.exit_now(code)
    context.exit(code)


@main.command("verify-pack")
@click.argument("file")
@overrides_argument
@click.option("--size", type=click.IntRange(2), help="Trials of a pack at most.")
@click.option("--packs", "most", type=click.IntRange(1), help="Compare the first so many packs.")
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

    This is done here and now. Parameters must agree to 1e-5 after 10 steps in float64, where
    rounding hides nothing; final validation losses to 0.003 nats, and their differences must be
    0.0005 or less on average; else the exit code is 1.
    """
    made = _plan(file, overrides, state_root)
    from sweeps.execution.verify_pack import compare, packs_of, verdict
    from sweeps.planning.estimate import estimate

    packs = packs_of(made, size)
    if not packs:
        raise UserError(f"{file}: no trial is trained by steps, so there is nothing to pack")
    chosen = packs[:most]
    trials = [trial for pack in chosen for trial in pack]
    takes_s = 2 * estimate(trials, made.corpus).seconds(1)  # in packs, and alone
    of = f" of {len(packs)}" if len(chosen) < len(packs) else ""
    few = "; --packs 1 compares one" if len(chosen) > 1 else ""
    _say(
        f"compare {len(chosen)}{of} packs, {len(trials)} trials, twice each: about"
        f" {duration(takes_s)} on this machine{few}"
    )
    compared, started_s = [], time.monotonic()
    for pack in compare(made.corpus, chosen):
        compared.append(pack)
        first = pack.trials[0]
        name = f"{first.model.variant} {first.flat.get('n_embd', '')}/{first.training.block_size}"
        found = (
            pack.problem
            or f"parameters {pack.parameters:.1e}, losses within {pack.largest:.5f} nats"
        )
        said = "alone" if pack.problem else "honest" if pack.is_honest else "OFF"
        left = len(chosen) - len(compared)
        left_s = (time.monotonic() - started_s) / len(compared) * left
        goes_on = f" ({left} to go, {duration(left_s)})" if left else ""
        _say(f"{said:<8}{name}, {len(pack.trials)} trials: {found}{goes_on}")
    is_honest, summary = verdict(compared)
    _say(f"{'honest' if is_honest else 'OFF':<8}{summary}")
    context.exit(0 if is_honest else 1)


@main.command()
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
    """Send MLflow what it does not have yet of SWEEPS.

    Without SWEEPS, of all that are in the state directory.
    """
    from sweeps.execution.service import sweep_names, sync_sweep
    from sweeps.records.state import state_at

    state = state_at(state_root)
    unsent = 0
    for name in sweeps or sweep_names(state):
        outcome = sync_sweep(name, state, tracking_uri, storage_uri, _say)
        why = in_a_line(outcome.problem)
        said = f"{outcome.unsent} runs unsent ({why})" if outcome.unsent else "all sent"
        _say(f"{name}: {said}")
        unsent += outcome.unsent
    context.exit(1 if unsent else 0)


def _say(line: str) -> None:
    """Print a line; a sweep goes on where nobody can read it."""
    try_to_say(line)


def _show_faults(outcome: Outcome) -> None:
    """What went wrong on the way, and what it cost."""
    if outcome.restarts or outcome.recomputed:
        _say(
            f"faults  workers died {outcome.restarts} times; at least {outcome.recomputed} steps"
            " were taken again"
        )
    for note in outcome.notes.values():
        _say(f"lost    {in_a_line(note)}")


def _show_failures(failed: Sequence[TrialRecord], storage: Storage) -> None:
    """The failed trials by what they died of, numbers aside."""
    from trainables.worker.trial_log import LOG

    groups: dict[str, list[TrialRecord]] = {}
    for record in failed:
        groups.setdefault(NUMBER.sub("#", record.reason), []).append(record)
    for records in groups.values():
        first = records[0]
        log = f"{storage.where(first.key)}/artifacts/{LOG}"
        _say(f"failed  {len(records)} x {in_a_line(first.reason)}")
        _say(f"        first: {in_a_line(first.content['name'])} ({first.key}), log: {log}")


def _browse(name: str, outcome: Outcome, store: Sequence[str], state_root: Path) -> str:
    """Where the runs of a sweep are seen: a server's address, or the command that serves it."""
    from sweeps.tracking.views import server_address, view_link

    if not outcome.uri.startswith("http"):
        return _command("sweeps", "ui", name, *store, "--state", state_root)
    address = server_address(outcome.uri)
    return (
        view_link(address, outcome.experiment_id, "ranking") if outcome.experiment_id else address
    )


def _command(*arguments: object) -> str:
    """A command that can be pasted into a shell."""
    words = [str(argument) for argument in arguments]
    if words[-2:] == ["--state", "state"]:
        words = words[:-2]
    return shlex.join(words)


@main.command()
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
    settle_orphans(experiments, state, uri, _say)
    if uri.startswith("http"):
        _show_links(server_address(uri), experiments)
        return
    try:
        with (
            interruptible(),
            mlflow_ui(uri, log_file=state.root / "ui.log", port=port) as base_url,
        ):
            _show_links(base_url, experiments)
            _say("Ctrl-C ends it.")
            signal.pause()
    except UiError as error:
        raise UserError(str(error)) from None
    except KeyboardInterrupt:
        _say("ended")


@main.command()
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


def _show_ranking(ranking: object) -> None:
    import pandas as pd

    from analysis.results.ranking import DECIMALS
    from analysis.text.document import in_short

    assert isinstance(ranking, pd.DataFrame)
    hidden = ["train_loss", "best_val_loss", "training_seconds", "left_out", "run_ids"]
    shown = ranking.drop(columns=hidden).dropna(axis="columns", how="all")
    same = [name for name in shown if shown[name].nunique(dropna=False) == 1]
    if len(shown.columns) > WIDE and same and len(shown) > 1:
        _say("all     " + ", ".join(f"{name}={shown[name].iloc[0]}" for name in same))
        shown = shown.drop(columns=same)
    columns = [
        [in_short(value, 4 if name in DECIMALS else None) for value in shown[name]]
        for name in shown
    ]
    _say(table(list(shown.columns), list(zip(*columns, strict=True))))


def _show_links(base_url: str, experiments: dict[str, str]) -> None:
    from sweeps.tracking.views import view_link

    for name, experiment_id in experiments.items():
        for view in ("ranking", "curves"):
            _say(f"{name} {view}: {view_link(base_url, experiment_id, view)}")
    _say(
        "Open these links: MLflow's home page shows traces of another kind of work, of which there"
        ' are none, until "Model training" is chosen there.'
    )


for one in (jobs.submit, jobs.status, jobs.logs, jobs.stop, jobs.resume):
    main.add_command(one)
