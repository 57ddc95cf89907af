"""Reading an MLflow store: its sweeps, their runs, and what a trial left there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError, nearest
from analysis.text.messages import first_line
from analysis.trials.mlflow_store import open_store
from trainables.errors import UserError
from trainables.persistence.artifacts import CONFIGURATION, WEIGHTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ALWAYS = {  # settings of MLflow that override the user's, because they change what a write means
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # a write that fails later would count as done
    "MLFLOW_TRUNCATE_LONG_VALUES": "true",  # else a long note keeps its run from being sent
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # our output is read by programs
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def mlflow_client(uri: str, must_exist: bool = False, driven: str | None = None) -> MlflowClient:
    """Return a client that prints nothing and gives up soon if the server does not answer.

    Args:
        uri: of the store.
        must_exist: do not create a store if there is no file.
        driven: name of the sweep that this process runs.

    Raises:
        UserError: the store cannot be opened.
    """
    os.environ.update(ALWAYS)
    try:
        return open_store(uri, must_exist, driven)
    except AnalysisError as error:
        raise UserError(str(error)) from None


def sweep_experiments(client: MlflowClient, sweep: str | None) -> dict[str, str]:
    """Return the ids of the experiments of sweeps by name; of one sweep if it is given.

    Raises:
        UserError: there is no sweep, or none of that name.
    """
    found = {
        experiment.name: experiment.experiment_id
        for experiment in client.search_experiments()
        if any(tag.startswith("mlflow.sharedViewState.") for tag in experiment.tags)
    }
    if not found:
        raise UserError("the MLflow store has no sweep yet; run one first")
    if sweep is None:
        return found
    if sweep not in found:
        raise UserError(f"the MLflow store has no sweep {sweep!r}; {nearest(sweep, found)}")
    return {sweep: found[sweep]}


def fetch_model(client: MlflowClient, name: str, folder: Path) -> Path:
    """Download the files of a trained model.

    Args:
        client: from `mlflow_client`.
        name: an MLflow run id, a trial's key, or SWEEP/best.
        folder: receives the files.

    Returns:
        The folder with the files.

    Raises:
        UserError: there is no such trial, or it has no model.
    """
    run = _find_trial(client, name)
    if run.info.status != "FINISHED":
        raise UserError(f"trial {name!r} has no model: it is {run.info.status}")
    from mlflow.exceptions import MlflowException

    try:
        for file in (CONFIGURATION, WEIGHTS):
            client.download_artifacts(run.info.run_id, file, str(folder))
    except (MlflowException, OSError) as error:
        raise UserError(f"the model of {name!r} cannot be fetched: {first_line(error)}") from None
    return folder


def _find_trial(client: MlflowClient, name: str) -> Run:
    sweep, slash, which = name.rpartition("/")
    if slash and which == "best":
        (experiment_id,) = sweep_experiments(client, sweep).values()
        order = ["metrics.val_loss ASC"]
        query = "tags.role = 'trial' AND attributes.status = 'FINISHED'"
        runs = client.search_runs([experiment_id], query, max_results=1_000, order_by=order)
        found = [run for run in runs if not run.data.tags.get("stopped")]  # only these have a model
        if not found:
            raise UserError(f"no trial of {sweep} is finished, so it has no best model yet")
    else:
        quoted = name.replace("'", "")
        sweeps = sweep_experiments(client, None)
        ids = list(sweeps.values())
        found = [
            run
            for field in ("attributes.run_id", "tags.key")
            for run in client.search_runs(ids, f"{field} = '{quoted}'", max_results=1)
        ]
    if not found and (start := name.partition("/")[0]) in sweeps:
        raise UserError(
            f"{start} is a sweep, and {name!r} no trial; name its best one {start}/best"
        )
    if not found:
        raise UserError(f"there is no trial {name!r}; name a run id, a trial's key, or SWEEP/best")
    return found[0]
