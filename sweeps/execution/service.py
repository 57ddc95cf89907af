"""Bringing about what a sweep file describes, whatever happened before."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import AnalysisError, Trials, load_trials, tables, write_ranking, write_tables
from analysis.errors import nearest
from analysis.figures.matplotlib_settings import load_matplotlib
from analysis.reports.ranking_texts import means_in_words
from analysis.results.ranking import level_means
from analysis.text.terminal import in_a_line
from analysis.trials.mlflow_store import PICTURE
from analysis.trials.sqlite_store import STORE, artifacts_beside, store_file
from sweeps.cluster.ray_environment import prepare_ray, scratch_folder
from sweeps.execution.changes import change
from sweeps.execution.progress import Before, Progress
from sweeps.planning.earlier import earlier_here
from sweeps.planning.estimate import estimate
from sweeps.planning.forecast import SearchForecast
from sweeps.planning.plan import Plan
from sweeps.process import signals
from sweeps.process.phases import phase
from sweeps.process.stopping import NEVER, Stop
from sweeps.process.summary import counted
from sweeps.records.events import TrialEvent
from sweeps.records.lock import only_driver
from sweeps.records.outbox import Outbox
from sweeps.records.outbox_file import OUTBOX
from sweeps.records.records import TrialRecord
from sweeps.records.state import State, check_disk, make_writable
from sweeps.resources.gpus import largest, settle
from sweeps.resources.nodes import check_address, concurrency, local_node
from sweeps.resources.packs import settle_packs
from sweeps.search.queue import Queue
from sweeps.spec.passwords import refuse_password
from sweeps.tracking.description import describe_sweep, describe_trial
from trainables.config import TrialConfig
from trainables.errors import UserError
from trainables.persistence.storage import Storage, StorageError, check_from_here, open_storage

if TYPE_CHECKING:
    from sweeps.search.search import Search
    from sweeps.tracking.delivery import Delivery

ABANDON_S = 0.8  # how long the store may take where the end of the process does not wait
SERVERS = ("http", "databricks")  # stores that say themselves where artifacts are kept
STORE_S = 30.0  # how long the start of a sweep waits for its tracking store

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to run a sweep; nothing here decides a result."""

    tracking_uri: str | None = None  # of an MLflow store other than the one in the state directory
    address: str | None = None  # of a Ray cluster; None starts Ray on this machine
    fail_fast: bool = False  # stop at the first trial that fails
    retry_failed: bool = False  # forget how often trials failed
    storage_uri: str | None = None  # of the trials' files, if not in the state directory
    retire: bool = False  # trials with results that are no longer part of the sweep


@dataclass
class Outcome:
    """What a run of a sweep came to."""

    stop: Stop
    reports: Path
    storage: Storage  # of the trials
    uri: str  # of the tracking store
    status: str = "KILLED"  # FINISHED: all trials are; FAILED: some failed; KILLED: stopped
    failed: list[TrialRecord] = field(default_factory=list)
    fruitless: list[str] = field(default_factory=list)  # studies in which no trial was finished
    exhausted: list[str] = field(default_factory=list)  # why studies suggested no more, in words
    notes: dict[str, str] = field(default_factory=dict)  # what could not be trusted, by trial key
    restarts: int = 0  # how often a worker of this run died
    recomputed: int = 0  # steps known to be taken again for it, or for an earlier driver
    unsent: int = 0  # runs that the tracking store does not have as they are
    problem: str = ""  # why
    ranking: pd.DataFrame | None = None  # None when no trial is finished or some are unsent
    unranked: str = ""  # why not, where all is sent
    means: list[str] = field(default_factory=list)  # what the settings of a grid do, in words
    experiment_id: str = ""  # of the ranking


def run_sweep(plan: Plan, state: State, options: Options, say: Say) -> Outcome:
    """Train every trial that is not finished yet, and rank all of them.

    Args:
        plan: from `make_plan`.
        state: where everything is written.
        options: how to run.
        say: shows a line to the user.

    Raises:
        UserError: the state directory, the store or the resources do not permit a run, another
            process runs the sweep, or trials with results are no longer part of it.
        KeyboardInterrupt: it was interrupted before anything was trained.
    """
    if options.address is None:
        concurrency(plan.sweep.resources.settled(0), [local_node()])
    else:
        check_address(options.address)
    make_writable(state)
    name = plan.sweep.name
    uri = options.tracking_uri or plan.sweep.tracking.uri or state.tracking_uri
    storage_uri = options.storage_uri or plan.sweep.storage.uri
    refuse_password(storage_uri or "")  # it is kept in the outbox
    storage = open_storage(storage_uri, state.sweep(name), name)
    check_from_here(storage)
    stop = Stop()
    outcome = Outcome(stop, state.reports(name), storage, uri)
    with (
        only_driver(state.sweep(name), name),
        signals.given_to(stop),
        stop.cut_is_interrupt(),
        _outbox(state, name, say) as outbox,
    ):
        stop.may_cut(0)
        search = _open_search(plan, state, outbox, uri, say) if plan.studies else None
        trials = _describe(plan, search)
        before = outbox.trials()
        _check_change(plan, name, before, trials, options.retire, say)
        outbox.describe({**describe_sweep(plan), "storage": storage_uri}, trials)
        if options.retry_failed:
            outbox.forgive()

        def may_retire(runs: Sequence[TrialRecord]) -> None:
            from sweeps.tracking.experiment import RefusedError

            try:
                _check_change(plan, name, runs, trials, options.retire)
            except UserError as error:
                raise RefusedError(str(error)) from None

        with _delivery(outbox, state, outcome, say, may_retire) as delivery:
            stop.at_deadline = lambda: _abandon(outbox, delivery)
            queue = None
            try:
                queue = _queue(plan, search, outbox, storage, before, say)
                if not queue.is_over:
                    _train(plan, queue, state, options, outbox, delivery, outcome, say)
                stop.may_cut(NEVER)
            except BaseException:  # an import that is cut may end in any way
                stop.may_cut(NEVER)
                if not stop.is_interrupted:
                    raise
                stop.is_cut = True
            finally:
                _conclude(outbox, delivery, outcome, queue)
    return outcome


def _abandon(outbox: Outbox, delivery: Delivery) -> None:
    """Say in the store that the sweep was stopped, where the main thread cannot."""
    outbox.settle()
    outbox.end("KILLED")
    delivery.flush(ABANDON_S)


def _describe(plan: Plan, search: Search | None) -> dict[str, dict[str, Any]]:
    """What the outbox keeps of all trials that there are so far, by key."""
    trials = {trial.key: describe_trial(plan, trial) for trial in plan.trials}
    if search:
        trials |= {t.key: describe_trial(plan, t, tags) for t, tags in search.known()}
    return trials


def _check_change(
    plan: Plan,
    name: str,
    records: Sequence[TrialRecord],
    trials: Mapping[str, Mapping[str, Any]],
    retire: bool,
    say: Say | None = None,
) -> None:
    """Show how the trials differ from those that the sweep has, in its outbox or in MLflow.

    Raises:
        UserError: some that have results are no longer part of it, and are not to be retired.
    """
    found = change(records, trials, plan)
    if not records or not (found.come or found.go):
        return
    if found.go_done and not retire:
        raise UserError(
            f"the sweep {name!r} has other trials, and {found.go_done} that go have"
            f" results: {found}.\nGive this one another name with name=NAME, or add --retire: the"
            " runs of those that go stay in MLflow, out of the rankings, and come back with their"
            " settings"
        )
    if say:
        say(f"changed {found}")


def sync_sweep(
    name: str, state: State, tracking_uri: str | None, storage_uri: str | None, say: Say
) -> Outcome:
    """Send what the tracking store does not have of a sweep; train nothing.

    Raises:
        UserError: there is no such sweep in the state directory, or a process runs it.
    """
    if name not in (known := sweep_names(state)):
        raise UserError(f"there is no sweep {name!r} in {state.root}; {nearest(name, known)}")
    with only_driver(state.sweep(name), name), _outbox(state, name, say) as outbox:
        uri = tracking_uri or outbox.sweep.content["uri"] or state.tracking_uri
        storage_uri = storage_uri or outbox.sweep.content.get("storage")
        storage = open_storage(storage_uri, state.sweep(name), name)
        outcome = Outcome(Stop(), state.reports(name), storage, uri)
        with _delivery(outbox, state, outcome, say) as delivery:
            _conclude(outbox, delivery, outcome)
    return outcome


def sweep_names(state: State) -> list[str]:
    """The sweeps that were run in a state directory."""
    return sorted(path.parent.name for path in state.sweeps.glob(f"*/{OUTBOX}"))


@contextlib.contextmanager
def _outbox(state: State, name: str, say: Say) -> Iterator[Outbox]:
    path = state.sweep(name) / OUTBOX
    try:
        outbox = Outbox(path, name)
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be opened or made: {error}") from None
    try:
        if outbox.lost:
            say(f"lost    {outbox.lost}; its content comes back from the checkpoints and MLflow")
        yield outbox
    finally:
        outbox.close()


@contextlib.contextmanager
def _delivery(
    outbox: Outbox,
    state: State,
    outcome: Outcome,
    say: Say,
    may_retire: Callable[[Sequence[TrialRecord]], None] | None = None,
) -> Iterator[Delivery]:
    # MLflow is imported late: neither `--help` nor a refused sweep file waits for it.
    from sweeps.tracking.delivery import Delivery
    from sweeps.tracking.sweep_runs import SweepRuns

    name, uri = outbox.sweep.name, outcome.uri
    if uri.startswith(SERVERS):
        artifacts = None  # where the server says
    else:
        artifacts = artifacts_beside(store_file(uri) or state.root / STORE, name)

    def connect() -> SweepRuns:
        return SweepRuns(uri, outbox, artifacts, outcome.storage, outcome.reports, may_retire)

    delivery = Delivery(outbox, connect)
    try:
        with phase("opening MLflow"):
            delivery.wait_until_tried(STORE_S)
        if delivery.problem:
            say(f"offline MLflow takes no events now, they are kept: {delivery.problem}")
        yield delivery
    finally:
        delivery.close()


def _open_search(plan: Plan, state: State, outbox: Outbox, uri: str, say: Say) -> Search:
    """The studies of a sweep as they are, with what they can learn from elsewhere."""
    # Optuna is imported late, as MLflow is.
    from sweeps.search.replay import learn
    from sweeps.search.search import Search, known_studies
    from sweeps.search.study_storage import open_storage
    from sweeps.search.warm_start import from_store

    sweep, spec = plan.sweep, plan.sweep.search
    (studies, taken, known), lost = open_storage(
        spec.storage, state.sweep(sweep.name), functools.partial(known_studies, plan, outbox)
    )
    if lost:
        say(f"lost    {lost}; its studies come back from the trials of the sweep")
    if known and (lost or any(study.follows_another for study in studies)):
        say(f"learnt  {known} configurations from the trials of {sweep.name}")
    elif known:
        say(f"lost    the studies lack {known} suggestions, which come back from their trials")
    sources = {}
    for name in set(spec.warm_start) - {sweep.name}:
        try:
            sources[name] = from_store(uri, name, taken)
        except UserError as error:
            if not any(study.has_learnt_from(name) for study in studies):
                raise
            say(f"offline {error}; what was learnt before is kept")
    for name, observations in sources.items():
        learnt = sum(learn(study, observations) for study in studies)
        if learnt:
            say(f"learnt  {learnt} configurations from the trials of {name}")

    def announce(tagged: Sequence[tuple[TrialConfig, Mapping[str, str]]]) -> None:
        outbox.add({trial.key: describe_trial(plan, trial, tags) for trial, tags in tagged})

    limit = sweep.resources.max_failures
    return Search(studies, spec, sweep.confirm_seeds, limit, announce)


def _queue(
    plan: Plan,
    search: Search | None,
    outbox: Outbox,
    storage: Storage,
    before: Sequence[TrialRecord],
    say: Say,
) -> Queue:
    """What is left to do, which is said; ``before`` are the trials that the sweep had."""
    records = {record.key: record for record in outbox.trials()}
    queue = Queue(search)
    queue.put(_to_run(plan, records))
    used, new = 0, set[str]()  # suggestions so far, and keys of trials that `fill` adds
    if search:
        from sweeps.search.search import history_in

        # Trials that confirm come back when their study, which was lost, ends again.
        earlier = {record.key: record for record in outbox.removed_trials()}
        search.resume(earlier | records, history_in(outbox), queue)
        for event in queue.pending_events():
            outbox.record(event)
        used, waiting = search.used, {trial.key for trial in queue.waiting}
        queue.fill()
        new = {trial.key for trial in queue.waiting} - waiting
        records |= {record.key: record for record in outbox.trials()}
    kinds = ("done", "to continue", "to run", "failed to retry", "given up")
    counts = dict.fromkeys(kinds, 0)
    try:
        started = storage.started([trial.key for trial in queue.waiting])
    except StorageError as error:
        raise UserError(str(error)) from None
    counts["done"] = sum(record.is_done for record in records.values())
    for trial in queue.waiting:
        if records[trial.key].status == "FAILED":
            counts["failed to retry"] += 1
        elif trial.key in started:
            counts["to continue"] += 1
        elif trial.key not in new:
            counts["to run"] += 1
    failed = sum(record.status == "FAILED" for record in records.values())
    counts["given up"] = failed - counts["failed to retry"]
    counts["no longer part of the sweep"] = sum(
        record.status != "WAITING" and not (plan.confirming and record.is_confirming)
        for record in before
        if record.key not in records  # those that confirm come back, or others do, in the end
    )
    shown = [f"{count} {what}" for what, count in counts.items() if count or what == "done"]
    if search and not queue.is_over:
        to_confirm = plan.confirming - sum(
            record.is_confirming and (record.is_decided or key in started)
            for key, record in records.items()
        )
        shown += _coming(plan, used, to_confirm)
    say(f"{plan.sweep.name}: {', '.join(shown)}")
    for warning in plan.warnings:
        say(f"warning {in_a_line(warning)}")
    if search:
        of = "" if plan.suggestions is None else f" of {plan.suggestions}"
        say(f"search  {used}{of} suggestions made so far ({plan.sweep.search.sampler})")
    return queue


def _coming(plan: Plan, used: int, to_confirm: int) -> list[str]:
    """What a search will do, in words.

    Args:
        plan: of the sweep.
        used: how many suggestions were made so far.
        to_confirm: how many trials confirm winners, beside those that have begun.
    """
    what = "more suggestion" if used else "suggestion"
    studies = counted(len(plan.studies), "study", "studies")
    found = []
    if plan.suggestions is None:
        found.append(f"{what}s in {studies}")
    elif left := plan.suggestions - used:
        found.append(f"{counted(left, what)} in {studies}")
    if to_confirm > 0:
        found.append(f"then {counted(to_confirm, 'trial')} to confirm the winners")
    return found


def _to_come(plan: Plan, done: int, queue: Queue) -> int:
    """How many trials a search may still add; 0 where there is none, or no number limits it."""
    if not plan.studies or plan.to_come is None or queue.is_over:
        return 0
    return max(0, len(plan.trials) + plan.to_come - done - len(queue.waiting))


def _to_run(plan: Plan, records: Mapping[str, TrialRecord]) -> list[TrialConfig]:
    """The trials of the grid that are not done, nor given up."""
    limit = plan.sweep.resources.max_failures
    return [trial for trial in plan.trials if records[trial.key].is_left(limit)]


def _train(
    plan: Plan,
    queue: Queue,
    state: State,
    options: Options,
    outbox: Outbox,
    delivery: Delivery,
    outcome: Outcome,
    say: Say,
) -> None:
    """Train on a Ray cluster, while the progress is shown."""
    storage = outcome.storage
    before, recomputed = _before(outbox), outbox.recomputed
    total = None if plan.to_come is None else len(plan.trials) + plan.to_come
    coming = _to_come(plan, before.done, queue)
    with phase("timing some steps of the trials", say):
        cost = estimate(
            queue.waiting, plan.corpus, SearchForecast.of(plan, coming), earlier_here(state)
        )
    shapes = largest((*queue.waiting, *plan.examples), cost)
    if storage.disk:
        check_disk(storage.disk, cost.disk_bytes)
    queue.sort(cost.of)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        with phase("starting Ray" if options.address is None else "joining the cluster", say):
            prepare_ray(options.address)  # Ray is imported late as well
            from sweeps.cluster.connection import connected
            from sweeps.cluster.machines import check_storage, measure_gpus, measure_packs
            from sweeps.cluster.slots import Slots
            from sweeps.execution.tune_runner import run_trials

            nodes = stack.enter_context(connected(options.address, outcome.stop, scratch))
        if options.address is not None:
            check_storage(storage)
        with phase("measuring what a trial takes"):
            resources, why = settle(
                plan.sweep.resources, nodes, lambda: measure_gpus(shapes, plan.corpus)
            )
        at_once = concurrency(resources, nodes)
        if why:
            say(f"gpu     {why}, {at_once} at once")
        trials = queue.waiting or plan.examples
        with phase("measuring what packs of trials take"):
            packs = settle_packs(
                plan,
                resources,
                len(trials),
                at_once,
                lambda most: measure_packs(shapes, most, plan.corpus, resources.gpus),
            )
        if said := packs.in_words(trials):
            say(f"packs   {said}")
        slots = None
        if options.address is not None:
            slots = Slots(plan.sweep.name, resources, lambda: queue.demand(packs))
        what_comes = f"{queue.what_comes}, {at_once} at once"
        progress = Progress(plan, queue, cost, total, before, what_comes)

        def fail_fast(event: TrialEvent) -> None:
            if options.fail_fast and event.kind == "failed":
                outcome.stop.request("failed", f"a trial failed: {event.reason}")

        try:
            with progress.shown():
                run_trials(
                    queue,
                    plan.corpus,
                    resources,
                    packs,
                    lambda: slots.limit if slots else at_once,
                    storage,
                    [outbox.record, delivery.on_event, progress.on_event, fail_fast],
                    outcome.stop,
                    scratch,
                )
        finally:
            if slots and outcome.stop.cause != "lost":
                slots.release()
            outcome.notes, outcome.restarts = progress.notes, progress.restarts
            outcome.recomputed = outbox.recomputed - recomputed


def _before(outbox: Outbox) -> Before:
    """What is done when a run begins."""
    trials = outbox.trials()
    stopped = sum(one.status == "STOPPED" for one in trials)
    return Before(sum(one.is_done for one in trials), stopped, outbox.best())


def _conclude(
    outbox: Outbox, delivery: Delivery, outcome: Outcome, queue: Queue | None = None
) -> None:
    """Say in the store how the sweep ended, and rank what is finished.

    What cannot be sent stays in the outbox. Without a queue nothing was trained.
    """
    try:
        outbox.settle()
        trials = outbox.trials()
        outcome.failed = [record for record in trials if record.status == "FAILED"]
        if queue is None and "search" in outbox.sweep.content.get("tags", {}):
            was = outbox.sweep.status
            outcome.status = was if was in ("FINISHED", "FAILED") else "KILLED"
        elif queue.is_over if queue else {one.status for one in trials} <= {"FINISHED", "FAILED"}:
            outcome.fruitless = queue.source.without_result() if queue else []
            outcome.exhausted = queue.source.exhausted() if queue else []
            counts = any(not record.is_suggested for record in outcome.failed)
            outcome.status = "FAILED" if counts or outcome.fruitless else "FINISHED"
        has_finished = any(record.status == "FINISHED" for record in trials)
        del trials  # of thousands, while the store's runs come as well
        with phase("sending the runs to MLflow"):
            is_away = delivery.flush(outcome.stop.patience_s) > 0
        if not is_away and has_finished:
            _rank(outbox.sweep.name, outcome)
        outbox.end(outcome.status)
        outcome.unsent = delivery.flush(0 if is_away else outcome.stop.patience_s)
        outcome.problem = delivery.problem
    except sqlite3.Error as error:  # the disk is full, say; the checkpoints have it all
        outcome.stop.request("storage", f"the outbox cannot be written: {error}")


def _rank(name: str, outcome: Outcome) -> None:
    """Write the tables; there are none where the store went away just now."""
    try:
        trials = load_trials(name, outcome.uri)
        named = tables(trials)
    except AnalysisError as error:
        outcome.unranked = str(error)
        return
    write_tables(named, outcome.reports)
    write_ranking(named["ranking"], outcome.reports)
    if not outcome.stop.is_interrupted:  # nobody waits for a picture then
        _draw(trials, outcome.reports / PICTURE)
    outcome.ranking = named["ranking"]
    if not trials.search:  # the settings of which were chosen for their losses
        means = level_means(trials, named["ranking"].drop(columns="rank"))
        outcome.means = means_in_words(means)
    outcome.experiment_id = trials.sweep.get("experiment_id", "")


def _draw(trials: Trials, path: Path) -> None:
    """Write the picture that the page of the sweep's run shows; of a single trial there is none."""
    # Imported late: it takes a second.
    load_matplotlib()
    from analysis.figures.report_figures import overview

    with phase("drawing the results"):
        if figure := overview(trials):
            path.write_bytes(figure.png)
        else:
            path.unlink(missing_ok=True)
