"""Opening what a run of a sweep needs: its outbox, the delivery to MLflow, its studies."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from analysis.text.terminal import in_a_line
from analysis.trials.sqlite_store import STORE, artifacts_beside, store_file
from sweeps.deciding.further import Tagged
from sweeps.execution.run import Outcome, Say
from sweeps.planning.plan import Plan
from sweeps.process.phases import phase
from sweeps.process.summary import counted
from sweeps.records.outbox import Outbox
from sweeps.records.outbox_file import OUTBOX
from sweeps.records.records import TrialRecord
from sweeps.records.state import State
from sweeps.tracking.description import describe_trial
from trainables.config import TrialConfig
from trainables.errors import UserError

if TYPE_CHECKING:
    from sweeps.deciding.claims import SweepClaims
    from sweeps.deciding.decider import Decider
    from sweeps.search.search import Search
    from sweeps.search.study import Study
    from sweeps.tracking.delivery import Delivery

SERVERS = ("http", "databricks")  # stores that decide themselves where artifacts are kept
STORE_S = 30.0  # how long the start of a sweep waits for its tracking store


@contextlib.contextmanager
def opened_outbox(state: State, name: str, say: Say) -> Iterator[Outbox]:
    """Context manager: open the outbox of a sweep; make it if there is none.

    Raises:
        UserError: it cannot be opened or made.
    """
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
def opened_delivery(
    outbox: Outbox,
    state: State,
    outcome: Outcome,
    say: Say,
    check_runs: Callable[[Sequence[TrialRecord]], None] | None = None,
) -> Iterator[Delivery]:
    """Context manager: send the events of an outbox to MLflow, on a thread.

    Args:
        outbox: of the sweep.
        state: has the store, unless the outcome names another one.
        outcome: names the store.
        say: shows a line to the user.
        check_runs: called with the trials that the store has, if the outbox lacks some of them;
            raises `RefusedError` to keep the runs as they are.
    """
    # MLflow is imported late: neither `--help` nor a refused sweep file waits for it.
    from sweeps.tracking.delivery import Delivery
    from sweeps.tracking.sweep_runs import SweepRuns

    name, uri = outbox.sweep.name, outcome.uri
    if uri.startswith(SERVERS):
        artifacts = None  # the server decides
    else:
        artifacts = artifacts_beside(store_file(uri) or state.root / STORE, name)

    def connect() -> SweepRuns:
        return SweepRuns(uri, outbox, artifacts, outcome.storage, outcome.reports, check_runs)

    delivery = Delivery(outbox, connect)
    try:
        with phase("opening MLflow"):
            delivery.wait_until_tried(STORE_S)
        if delivery.problem:
            say(f"offline MLflow takes no events now, they are kept: {delivery.problem}")
        yield delivery
    finally:
        delivery.close()


def open_search(plan: Plan, state: State, outbox: Outbox, uri: str, say: Say) -> Search:
    """Open the studies of a sweep, and let them learn from the sweeps of their warm start.

    Args:
        plan: of the sweep.
        state: has the journal of the studies, unless the sweep names a database.
        outbox: of the sweep: suggestions that the studies lack come back from its trials.
        uri: of the tracking store, which has the other sweeps.
        say: shows a line to the user.
    """
    # Optuna is imported late, as MLflow is.
    from sweeps.search.search import Search, known_studies
    from sweeps.search.study_storage import open_study_storage

    sweep, spec = plan.sweep, plan.sweep.search
    (studies, keys, known), lost = open_study_storage(
        spec.storage, state.sweep(sweep.name), functools.partial(known_studies, plan, outbox)
    )
    if lost:
        say(f"lost    {lost}; its studies come back from the trials of the sweep")
    if known and (lost or any(study.follows_another for study in studies)):
        say(f"learnt  {known} configurations from the trials of {sweep.name}")
    elif known:
        say(f"lost    the studies lack {known} suggestions, which come back from their trials")
    _warm_start(studies, plan, keys, uri, say)

    def announce(tagged: Sequence[tuple[TrialConfig, Mapping[str, str]]]) -> None:
        outbox.add({trial.key: describe_trial(plan, trial, tags) for trial, tags in tagged})

    limit = sweep.resources.max_failures
    return Search(studies, spec, sweep.confirm_seeds, limit, announce)


def open_decider(
    plan: Plan, claims: SweepClaims, search: Search | None, outbox: Outbox, say: Say
) -> Decider:
    """Open the source of further seeds for the claims of a sweep, and keep the claims.

    Args:
        plan: of the sweep.
        claims: of the plan.
        search: of the sweep, if it has one.
        outbox: of the sweep, which keeps the claims and each look.
        say: shows a line to the user.
    """
    from sweeps.deciding.decider import Decider

    for gap in claims.gaps:
        say(f"claims  {in_a_line(gap)}")
    looks = outbox.looks
    finished = sum(record.status == "FINISHED" for record in outbox.trials())
    if looks.keep_claims(claims.text, claims.sha256, finished):
        say(
            f"claims  other claims than before, now that {counted(finished, 'trial')} of the sweep"
            " are finished; MLflow keeps both, with the times"
        )

    def winners() -> list[Tagged]:
        known = search.known() if search else ()
        return [(trial, tags) for trial, tags in known if tags.get("stage") == "confirm"]

    def announce(tagged: Sequence[Tagged]) -> None:
        outbox.add({trial.key: describe_trial(plan, trial, tags) for trial, tags in tagged})

    return Decider(
        plan,
        claims.judge,
        search,
        winners,
        announce,
        looks.add,
        looks.last,
    )


def _warm_start(studies: Sequence[Study], plan: Plan, keys: Set[str], uri: str, say: Say) -> None:
    """Let the studies learn from the trials of other sweeps in the tracking store.

    Args:
        studies: of the sweep.
        plan: names the other sweeps.
        keys: of trials that the studies know already, which are not read again.
        uri: of the store.
        say: shows a line to the user.

    Raises:
        UserError: a sweep cannot be read, and no study has learnt from it before.
    """
    from sweeps.search.replay import learn
    from sweeps.search.warm_start import from_store

    sources = {}
    for name in set(plan.sweep.search.warm_start) - {plan.sweep.name}:
        try:
            sources[name] = from_store(uri, name, keys)
        except UserError as error:
            if not any(study.has_learnt_from(name) for study in studies):
                raise
            say(f"offline {error}; what was learnt before is kept")
    for name, observations in sources.items():
        learnt = sum(learn(study, observations) for study in studies)
        if learnt:
            say(f"learnt  {learnt} configurations from the trials of {name}")
