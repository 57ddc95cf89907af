"""The end of a run: sending the last events to the tracking store, ranking what is finished."""

from __future__ import annotations

import sqlite3
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import AnalysisError, Trials, load_trials, tables, write_ranking, write_tables
from analysis.figures.matplotlib_settings import load_matplotlib
from analysis.reports.ranking_texts import means_in_words
from analysis.results.ranking import level_means
from analysis.trials.mlflow_store import DECIDE, PICTURE
from sweeps.execution.run import Outcome
from sweeps.process.phases import phase
from sweeps.records.outbox import Outbox
from sweeps.search.queue import Queue

if TYPE_CHECKING:
    from sweeps.tracking.delivery import Delivery

GROWING = {"search", DECIDE}  # tags of sweeps that add trials while they run
ABANDON_S = 0.8  # how long the store may take if the end of the process does not wait


def conclude(
    outbox: Outbox, delivery: Delivery, outcome: Outcome, queue: Queue | None = None
) -> None:
    """Send the tracking store how the sweep ended, and rank the finished trials.

    What cannot be sent stays in the outbox.

    Args:
        outbox: of the sweep.
        delivery: of the outbox.
        outcome: to be filled.
        queue: of this run; None if nothing was trained.
    """
    try:
        outbox.kill_running()
        trials = outbox.trials()
        outcome.failed = [record for record in trials if record.status == "FAILED"]
        statuses = {record.status for record in trials}
        del trials  # of thousands, while the store's runs are loaded as well
        if queue:
            outcome.claims = queue.source.results()
        if queue and queue.is_over:
            outcome.without_result = queue.source.without_result()
            outcome.exhausted = queue.source.exhausted()
        outcome.status = _final_status(outbox, outcome, queue, statuses)
        with phase("sending the runs to MLflow"):
            is_away = delivery.flush(outcome.stop.patience_s) > 0
        if not is_away and "FINISHED" in statuses:
            rank(outbox.sweep.name, outcome)
        outbox.end(outcome.status)
        outcome.unsent = delivery.flush(0 if is_away else outcome.stop.patience_s)
        outcome.problem = delivery.problem
    except sqlite3.Error as error:  # the disk is full, say; the checkpoints have it all
        outcome.stop.request("storage", f"the outbox cannot be written: {error}")


def _final_status(outbox: Outbox, outcome: Outcome, queue: Queue | None, statuses: Set[str]) -> str:
    """Return FINISHED, FAILED or KILLED for a sweep whose trials have these statuses."""
    if queue is None and GROWING & outbox.sweep.content.get("tags", {}).keys():
        last = outbox.sweep.status
        return last if last in ("FINISHED", "FAILED") else "KILLED"
    if not (queue.is_over if queue else statuses <= {"FINISHED", "FAILED"}):
        return "KILLED"
    has_failed = any(not record.is_suggested for record in outcome.failed)
    return "FAILED" if has_failed or outcome.without_result else "FINISHED"


def abandon(outbox: Outbox, delivery: Delivery) -> None:
    """Mark the sweep as stopped in the tracking store, when the main thread cannot."""
    outbox.kill_running()
    outbox.end("KILLED")
    delivery.flush(ABANDON_S)


def rank(name: str, outcome: Outcome) -> None:
    """Write the tables of a sweep; none if the store does not answer any more."""
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
    if not trials.search:  # a sampler chose its settings for their losses: means would mislead
        means = level_means(trials, named["ranking"].drop(columns="rank"))
        outcome.means = means_in_words(means)
    outcome.experiment_id = trials.sweep.get("experiment_id", "")


def _draw(trials: Trials, path: Path) -> None:
    """Write the picture on the page of the sweep's run; there is none of a single trial."""
    if len(trials.finished) < 2:
        path.unlink(missing_ok=True)
        return
    load_matplotlib()  # late, as it takes a second
    from analysis.figures.report_figures import overview_figure

    with phase("drawing the results"):
        if figure := overview_figure(trials):
            path.write_bytes(figure.png)
        else:
            path.unlink(missing_ok=True)
