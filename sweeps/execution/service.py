"""Running a sweep: training what its file describes, and continuing earlier runs of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.errors import nearest
from analysis.trials.mlflow_store import CLAIMS_IN_FORCE
from sweeps.deciding.further import Tagged, further_trials
from sweeps.execution.changes import Content
from sweeps.execution.conclusion import abandon, conclude
from sweeps.execution.opening import open_decider, open_search, opened_delivery, opened_outbox
from sweeps.execution.remaining import remaining_trials
from sweeps.execution.retirement import Retirement
from sweeps.execution.run import Options, Outcome, RunContext, Say
from sweeps.execution.training import train
from sweeps.planning.plan import Plan
from sweeps.process import signals
from sweeps.process.stopping import NEVER, Stop
from sweeps.records.lock import only_driver
from sweeps.records.records import TrialRecord
from sweeps.records.state import State, make_writable
from sweeps.resources.nodes import check_address, check_this_machine
from sweeps.spec.passwords import refuse_password
from sweeps.tracking.description import describe_sweep, describe_trial
from trainables.errors import UserError
from trainables.persistence.storage import check_from_here, open_storage

if TYPE_CHECKING:
    from sweeps.deciding.claims import SweepClaims
    from sweeps.deciding.decider import Decider
    from sweeps.search.search import Search


def run_sweep(plan: Plan, state: State, options: Options, say: Say) -> Outcome:
    """Train every trial that is not finished yet, and rank all of them.

    Args:
        plan: from `make_plan`.
        state: the directory of all files.
        options: how to run.
        say: shows a line to the user.

    Raises:
        UserError: the state directory, the store or the resources do not permit a run, another
            process runs the sweep, or trials with results are no longer part of it.
        KeyboardInterrupt: it was interrupted before anything was trained.
    """
    name, storage_uri = plan.sweep.name, options.storage_uri or plan.sweep.storage.uri
    claims = _claims(plan)
    outcome = _prepare(plan, state, options, storage_uri)
    stop = outcome.stop
    with (
        only_driver(state.sweep(name), name),
        signals.received_by(stop),
        stop.cut_is_interrupt(),
        opened_outbox(state, name, say) as outbox,
    ):
        stop.may_cut(0)
        search = open_search(plan, state, outbox, outcome.uri, say) if plan.studies else None
        before = outbox.trials()
        everything = [*before, *outbox.removed_trials()]
        retirement = Retirement(plan, described(plan, search, everything), options.retire)
        retirement.check(before, say)
        tags = {CLAIMS_IN_FORCE: claims.sha256} if claims else {}
        content = {**describe_sweep(plan, tags), "storage": storage_uri}
        outbox.describe(content, retirement.trials)
        decider = open_decider(plan, claims, search, outbox, say) if claims else None
        if options.retry_failed:
            outbox.reset_failures()
        with opened_delivery(outbox, state, outcome, say, retirement.check_runs) as delivery:
            stop.at_deadline = lambda: abandon(outbox, delivery)
            run = RunContext(plan, state, options, outbox, delivery, outcome, say)
            _carry_out(run, search, decider, before)
    return outcome


def _claims(plan: Plan) -> SweepClaims | None:
    """Return the claims that a sweep decides, checked on its trials; None if it decides none.

    Raises:
        UserError: they cannot be read, or do not fit the trials.
    """
    if plan.sweep.decide is None:
        return None
    from sweeps.deciding.claims import read_claims  # it loads the libraries of `analysis`

    return read_claims(plan)


def _prepare(plan: Plan, state: State, options: Options, storage_uri: str | None) -> Outcome:
    """Check what a run needs before anything slow begins; return its outcome, still empty.

    Raises:
        UserError: no machine can run a trial, or the state directory or the storage is unusable.
    """
    if options.address is None:
        check_this_machine(plan.sweep.resources)
    else:
        check_address(options.address)
    make_writable(state)
    name = plan.sweep.name
    uri = options.tracking_uri or plan.sweep.tracking.uri or state.tracking_uri
    refuse_password(storage_uri or "")  # the outbox keeps it
    storage = open_storage(storage_uri, state.sweep(name), name)
    check_from_here(storage)
    return Outcome(Stop(), state.reports(name), storage, uri)


def described(
    plan: Plan, search: Search | None, records: Sequence[TrialRecord]
) -> dict[str, Content]:
    """Return the descriptions of all trials known so far, which the outbox keeps, by key.

    Args:
        plan: of the sweep.
        search: of the sweep, if it has one.
        records: of trials that the outbox has; further seeds that were trained stay.
    """
    tagged: list[Tagged] = [(trial, {}) for trial in plan.trials]
    tagged += search.known() if search else []
    trials: dict[str, Content] = {t.key: describe_trial(plan, t, tags) for t, tags in tagged}
    bases = [(trial, tags) for trial, tags in tagged if tags.get("stage") != "search"]
    is_deciding = plan.sweep.decide is not None
    contents = {record.key: record.content for record in records}
    for trial, tags in further_trials(bases, records, is_deciding):
        content = describe_trial(plan, trial, tags) if is_deciding else contents[trial.key]
        trials[trial.key] = content
    return trials


def _carry_out(
    run: RunContext,
    search: Search | None,
    decider: Decider | None,
    before: Sequence[TrialRecord],
) -> None:
    """Train what is left, and conclude the sweep, also after an error."""
    stop, queue = run.outcome.stop, None
    try:
        queue = remaining_trials(run, search, decider, before)
        if not queue.is_over:
            train(run, queue)
        stop.may_cut(NEVER)
    except BaseException:  # an import that is cut may end in any way
        stop.may_cut(NEVER)
        if not stop.is_interrupted:
            raise
        stop.is_cut = True
    finally:
        conclude(run.outbox, run.delivery, run.outcome, queue)


def sync_sweep(
    name: str, state: State, tracking_uri: str | None, storage_uri: str | None, say: Say
) -> Outcome:
    """Send the tracking store what it lacks of a sweep; train nothing.

    Args:
        name: of the sweep.
        state: the directory that has its outbox.
        tracking_uri: of the store; None for the one that the sweep was run with.
        storage_uri: of the trials' files; None for the one that the sweep was run with.
        say: shows a line to the user.

    Raises:
        UserError: there is no such sweep in the state directory, or a process runs it.
    """
    if name not in (known := sweep_names(state)):
        raise UserError(f"there is no sweep {name!r} in {state.root}; {nearest(name, known)}")
    with only_driver(state.sweep(name), name), opened_outbox(state, name, say) as outbox:
        uri = tracking_uri or outbox.sweep.content["uri"] or state.tracking_uri
        storage_uri = storage_uri or outbox.sweep.content.get("storage")
        storage = open_storage(storage_uri, state.sweep(name), name)
        outcome = Outcome(Stop(), state.reports(name), storage, uri)
        with opened_delivery(outbox, state, outcome, say) as delivery:
            conclude(outbox, delivery, outcome)
    return outcome


def sweep_names(state: State) -> list[str]:
    """Return the names of the sweeps that were run in a state directory."""
    return list(state.outboxes)
