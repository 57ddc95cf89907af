"""From MLflow to a table with a row for each trial."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError

PAGE = 1_000
MLFLOW_ENVIRONMENT = {  # read by MLflow when it is imported or first used
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
METRICS = ("train_loss", "val_loss", "best_val_loss", "tokens_per_second", "training_seconds")
# Settings in the order in which people read them; others follow in the order of the alphabet.
FIRST_PARAMS = ("variant", "pe_type", "n_embd", "block_size")


@dataclass(frozen=True)
class Trials:
    """The trials of an experiment.

    ``table`` has one row a trial: ``run_id``, ``name``, ``key``, ``status``, ``failure``, a column
    for each name in ``params`` (numbers where all values are), and the metrics of the last step:
    losses in nats per character, ``tokens_per_second``, ``training_seconds``.
    """

    experiment: str
    table: pd.DataFrame
    params: tuple[str, ...]

    @property
    def varying(self) -> tuple[str, ...]:
        """The params that differ between trials, one that some trials lack included."""
        return tuple(name for name in self.params if self.table[name].nunique(dropna=False) > 1)

    @property
    def finished(self) -> pd.DataFrame:
        """The rows that count in a ranking."""
        return self.table[self.table["status"] == "FINISHED"]


def load_trials(experiment: str, tracking_uri: str) -> Trials:
    """Read the trials of an experiment, page by page.

    Args:
        experiment: its name, which is the sweep's.
        tracking_uri: of the MLflow store.

    Raises:
        AnalysisError: the store does not answer, has no such experiment, or it has no trials.
    """
    client = open_store(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = sorted(one.name for one in client.search_experiments())
            raise AnalysisError(
                f"{tracking_uri} has no experiment {experiment!r}; there are: {', '.join(names)}"
            )
        return trials_of(experiment, list(runs_of(client, found.experiment_id, "trial")))
    except MlflowException as error:
        raise AnalysisError(
            f"the MLflow store {tracking_uri} does not answer: {first_line(error)}"
        ) from None


def open_store(uri: str) -> Any:
    """An `MlflowClient` that keeps quiet and gives up soon.

    Raises:
        AnalysisError: the store does not answer.
    """
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("alembic").setLevel(logging.ERROR)
    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise AnalysisError(
            f"the MLflow store {uri} does not answer: {first_line(error)}"
        ) from None
    return client


def runs_of(client: Any, experiment_id: str, role: str | None = None) -> Iterator[Any]:
    """The runs of an experiment that have a role, page by page.

    Roles are ``trial``, ``sweep``, and ``removed`` for a trial that its sweep does not describe any
    more; None takes all runs.
    """
    query = f"tags.role = '{role}'" if role else ""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def trials_of(experiment: str, runs: list[Any]) -> Trials:
    """Make the table from MLflow's runs.

    Raises:
        AnalysisError: there are none.
    """
    if not runs:
        raise AnalysisError(f"experiment {experiment!r} has no trials")
    params = sorted({name for run in runs for name in run.data.params}, key=_reading_order)
    table = pd.DataFrame([_row(run) for run in runs])
    for name in params:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.notna() == table[name].notna()).all():
            table[name] = numbers.convert_dtypes()
    return Trials(experiment, table, tuple(params))


def _row(run: Any) -> dict[str, Any]:
    metrics = {name: run.data.metrics.get(name, float("nan")) for name in METRICS}
    identity = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "key": run.data.tags.get("key"),
        "status": run.info.status,
        "failure": run.data.tags.get("failure", ""),
    }
    return {**identity, **run.data.params, **metrics}


def _reading_order(name: str) -> tuple[int, str]:
    known = FIRST_PARAMS.index(name) if name in FIRST_PARAMS else len(FIRST_PARAMS)
    return known, name
