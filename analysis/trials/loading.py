"""From an experiment in MLflow, or a CSV file, to its trials."""

from __future__ import annotations

import gc
import json
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pandas as pd

from analysis.errors import AnalysisError
from analysis.text.messages import first_line
from analysis.trials.mlflow_store import PLAN, PLANNED, opened, runs_of, store_of
from analysis.trials.sqlite_store import is_driven, store_file
from analysis.trials.table import (
    COSTS,
    IDENTITY,
    METRICS,
    NUMBER_TAGS,
    TAGS,
    WAITING,
    Trials,
    column,
    in_reading_order,
    of_trials,
    typed,
)
from analysis.trials.trials_csv import read_trials_csv

if TYPE_CHECKING:
    from analysis.trials.mlflow_store import MlflowClient, Run

logger = logging.getLogger(__name__)

Row = dict[str, str | float | None]  # of the table, by column


class PlannedTrial(TypedDict):
    """A trial in the plan of a sweep, as its run keeps it."""

    key: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


def load_trials(experiment: str, tracking_uri: str | None = None) -> Trials:
    """Read the trials of an experiment, page by page, or of a table.

    Args:
        experiment: its name, which is the sweep's, or the path of a CSV file. The file has one row
            for each trial, and the columns ``val_loss`` and, if they are known, ``seed``,
            ``train_loss`` and others of `Trials`. All other columns are settings.
        tracking_uri: of the MLflow store; None takes MLFLOW_TRACKING_URI, or the store in the
            state directory (SWEEPS_STATE, or ``./state``).

    Raises:
        AnalysisError: the store does not answer, has no such experiment, or it has no trials; the
            file cannot be read.
    """
    if is_table(experiment):
        return read_trials_csv(Path(experiment))
    uri = tracking_uri or store_of(None)
    with _little_garbage(), opened(uri, experiment) as (client, experiment_id):
        runs = runs_of(client, experiment_id, "trial")
        parent = next(runs_of(client, experiment_id, "sweep"), None)
        planned = None if parent is None else _plan_of(client, parent)
        trials = trials_of(experiment, runs, parent, planned)
    file = store_file(uri)
    return _ended(trials) if file and is_driven(file, experiment) is False else trials


def _plan_of(client: MlflowClient, sweep: Run) -> list[Row] | None:
    """Return the plan in the run of a sweep; None if the run has none, or it cannot be read."""
    count = sweep.data.tags.get(PLANNED)
    if count is None:  # of an earlier version
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(client.download_artifacts(sweep.info.run_id, PLAN, folder))
            rows = [planned_row(each) for each in json.loads(path.read_text(encoding="utf-8"))]
        if str(len(rows)) != count:
            raise ValueError(f"it has {len(rows)} trials, not {count}")
        return rows
    except Exception as error:  # of whatever keeps the artifacts, or of a file that was cut
        logger.warning(
            "the plan of the sweep cannot be read, so all combinations of its settings and seeds"
            " are taken for planned: %s: %s",
            type(error).__name__,
            first_line(error),
        )
        return None


def _ended(trials: Trials) -> Trials:
    """Return the trials of a sweep that no process runs: those marked RUNNING were killed."""
    status = trials.table["status"].replace("RUNNING", "KILLED")
    sweep = dict(trials.sweep)
    if sweep.get("status") == "RUNNING":
        sweep["status"] = "KILLED"
    return replace(trials, table=trials.table.assign(status=status), sweep=sweep)


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Context manager: let Python look for reference cycles less often.

    There are few among runs, and looking at thousands of runs again and again takes longer than
    reading them.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def is_table(experiment: str) -> bool:
    """Return whether an argument is the path of a CSV file, and not the name of an experiment."""
    return experiment.endswith(".csv")


@of_trials
def load_curves(
    trials: Trials, tracking_uri: str | None = None, run_ids: Iterable[str] | None = None
) -> pd.DataFrame:
    """Return the validation losses of finished trials at each evaluation.

    Args:
        trials: from `load_trials`.
        tracking_uri: of the MLflow store, as there.
        run_ids: which trials; each takes a request.

    Returns:
        Columns ``run_id``, ``step`` (optimizer updates), ``val_loss`` (nats per character).

    Raises:
        AnalysisError: the store does not answer.
    """
    rows = []
    if trials.sweep:
        with opened(tracking_uri or store_of(None), trials.experiment) as (client, _):
            for run_id in trials.finished["run_id"] if run_ids is None else run_ids:
                for point in client.get_metric_history(run_id, "val_loss"):
                    rows.append((run_id, point.step, point.value))
    return pd.DataFrame(rows, columns=["run_id", "step", "val_loss"])


def trials_of(
    experiment: str,
    runs: Iterable[Run],
    sweep: Run | None = None,
    planned: Sequence[Row] | None = None,
) -> Trials:
    """Make the table from MLflow's runs.

    Args:
        experiment: its name.
        runs: of the trials.
        sweep: the run of the sweep itself.
        planned: a `planned_row` for each trial of its plan; None where that is not known.

    Raises:
        AnalysisError: there are none.
    """
    rows = [_row(run) for run in runs]
    if not rows:
        raise AnalysisError(f"experiment {experiment!r} has no trials")
    about: dict[str, str] = {}
    if sweep:
        about = {
            "run_id": sweep.info.run_id,
            "experiment_id": sweep.info.experiment_id,
            "status": sweep.info.status,
            **sweep.data.tags,
        }
    return trials_of_rows(experiment, rows, about, planned)


def trials_of_rows(
    experiment: str,
    rows: Sequence[Row],
    about: Mapping[str, str],
    planned: Sequence[Row] | None = None,
) -> Trials:
    """Make the table from rows of trials.

    Args:
        experiment: its name.
        rows: of the trials.
        about: the sweep: tags, run_id and status of its run.
        planned: a `planned_row` for each trial of its plan; None where that is not known.
    """
    settings = _settings_in(rows)
    others = _settings_in(planned or ()) - settings  # no run has them
    whole = typed(experiment, pd.DataFrame([*rows, *(planned or ())]), settings | others)
    table = whole.iloc[: len(rows)].drop(columns=list(others))
    plan = None if planned is None else whole.iloc[len(rows) :]
    return Trials(experiment, table, in_reading_order(settings), about, plan)


def _settings_in(rows: Iterable[Row]) -> set[str]:
    names = set[str]().union(*rows)
    return names - {"status", *IDENTITY, *TAGS, *NUMBER_TAGS, *METRICS, *COSTS}


def _row(run: Run) -> Row:
    return {
        **_settings_and_tags(run.data.params, run.data.tags),
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "key": run.data.tags.get("key"),
        "status": run.info.status,
        **{name: run.data.metrics.get(name, math.nan) for name in (*METRICS, *COSTS)},
    }


def planned_row(trial: PlannedTrial) -> Row:
    """Return the row of a trial that was planned."""
    return {
        **_settings_and_tags(trial["params"], trial["tags"]),
        "run_id": "",
        "name": trial["name"],
        "key": trial["key"],
        "status": WAITING,
        **dict.fromkeys((*METRICS, *COSTS), math.nan),
    }


def _settings_and_tags(params: Mapping[str, str], tags: Mapping[str, str]) -> Row:
    return {
        **{column(name): value for name, value in params.items()},
        **{name: tags.get(name, "") for name in TAGS},
        **{name: tags.get(tag) for name, tag in NUMBER_TAGS.items()},
    }
