"""A run of a sweep: its options, what it has open, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.planning.plan import Plan
from sweeps.process.stopping import Stop
from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from sweeps.records.state import State
from trainables.persistence.storage import Storage

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.cluster.ray_start import RayStart
    from sweeps.tracking.delivery import Delivery

Say = Callable[[str], None]  # shows a line to the user


@dataclass(frozen=True)
class Options:
    """How to run a sweep; no option changes a result."""

    tracking_uri: str | None = None  # of an MLflow store other than the one in the state directory
    address: str | None = None  # of a Ray cluster; None starts Ray on this machine
    fail_fast: bool = False  # stop at the first trial that fails
    retry_failed: bool = False  # forget how often trials failed
    storage_uri: str | None = None  # of the trials' files, if not in the state directory
    retire: bool = False  # trials with results that are no longer part of the sweep
    ray_start: RayStart | None = None  # of Ray on this machine, if it has begun already


@dataclass
class Outcome:
    """Result of one `sweeps run`: final status, failures, ranking."""

    stop: Stop
    reports: Path
    storage: Storage  # of the trials
    uri: str  # of the tracking store
    status: str = "KILLED"  # FINISHED: all trials are; FAILED: some failed; KILLED: stopped
    failed: list[TrialRecord] = field(default_factory=list)
    without_result: list[str] = field(
        default_factory=list
    )  # labels of studies without a finished trial
    exhausted: list[str] = field(default_factory=list)  # why studies suggested no more, in words
    claims: list[str] = field(default_factory=list)  # the verdicts on the sweep's claims, in words
    notes: dict[str, str] = field(
        default_factory=dict
    )  # what trials' files have lost, by trial key
    restarts: int = 0  # how often a worker of this run died
    recomputed: int = 0  # steps that were trained again after a worker or a driver died
    unsent: int = 0  # runs that the tracking store does not have in their last state
    problem: str = ""  # why runs are unsent
    ranking: pd.DataFrame | None = None  # None if no trial is finished or some runs are unsent
    unranked: str = ""  # why there is no ranking although all runs are sent
    means: list[str] = field(default_factory=list)  # mean losses by setting of a grid, in words
    experiment_id: str = ""  # of the ranking


@dataclass(frozen=True)
class RunContext:
    """The inputs and open files of one run of a sweep."""

    plan: Plan
    state: State
    options: Options
    outbox: Outbox
    delivery: Delivery
    outcome: Outcome  # filled while it runs
    say: Say
