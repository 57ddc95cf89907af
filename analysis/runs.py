"""From MLflow, or a CSV file, to the trials of an experiment."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError, nearest
from analysis.links import artifact_link
from analysis.messages import first_line, without_password
from analysis.sqlite_store import STORE, follow_move, is_driven, plain_uri, store_file, store_uri
from analysis.trials import (
    COSTS,
    IDENTITY,
    METRICS,
    NUMBER_TAGS,
    RESERVED,
    TAGS,
    WAITING,
    Trials,
    column,
    in_reading_order,
    is_finite,
    of_trials,
    typed,
)
from analysis.trials_csv import read_trials

__all__ = ["COSTS", "METRICS", "RESERVED", "Trials", "is_finite", "load_trials", "trials_of"]

logger = logging.getLogger(__name__)

PAGE = 1_000
MLFLOWS_OWN = "Default"  # an experiment that each store has
PLAN = "plan.json"  # artifact of a sweep's run: a list of the trials that it planned
PLANNED = "planned"  # its tag: how many they are
PICTURE = "overview.png"  # artifact of a sweep's run, which its page shows
REPORT = "report.html"  # artifact of a sweep's run
NOTE = "mlflow.note.content"  # tag: Markdown that the page of a run shows
DEFAULTS = {  # settings of MLflow, which the user may choose otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
OF_SERVERS = {  # settings of MLflow that a store in a file cannot have
    "MLFLOW_ENABLE_WORKSPACES": "false",  # it would be empty, or not open again without
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "",  # a connection that threads share mixes their writes
}
DATABASES = ("postgresql", "mysql", "mssql")


def load_trials(experiment: str, tracking_uri: str | None = None) -> Trials:
    """Read the trials of an experiment, page by page, or of a table.

    Args:
        experiment: its name, which is the sweep's; or the path of a CSV file with a row a trial:
            the columns ``val_loss`` and, if they are known, ``seed``, ``train_loss`` and others of
            `Trials`; what else it has are settings.
        tracking_uri: of the MLflow store; None takes MLFLOW_TRACKING_URI, or the store in the
            state directory (SWEEPS_STATE, or ``./state``).

    Raises:
        AnalysisError: the store does not answer, has no such experiment, or it has no trials; the
            file cannot be read.
    """
    if is_table(experiment):
        return read_trials(Path(experiment))
    uri = tracking_uri or store_of(None)
    with _little_garbage(), opened(uri, experiment) as (client, experiment_id):
        runs = runs_of(client, experiment_id, "trial")
        parent = next(runs_of(client, experiment_id, "sweep"), None)
        planned = None if parent is None else _plan_of(client, parent)
        trials = trials_of(experiment, runs, parent, planned)
    file = store_file(uri)
    return _ended(trials) if file and is_driven(file, experiment) is False else trials


def _plan_of(client: Any, sweep: Any) -> list[dict[str, Any]] | None:
    """What a sweep planned, as its run has it; None where it has nothing, or it cannot be read."""
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
    """The trials of a sweep that no process runs: one that was killed could not say so."""
    status = trials.table["status"].replace("RUNNING", "KILLED")
    sweep = dict(trials.sweep)
    if sweep.get("status") == "RUNNING":
        sweep["status"] = "KILLED"
    return replace(trials, table=trials.table.assign(status=status), sweep=sweep)


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Let Python look for cycles less often: there are few among runs, and looking at thousands of
    them again and again takes longer than reading them."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def is_table(experiment: str) -> bool:
    """Whether it is the path of a file, and not the name of an experiment."""
    return experiment.endswith(".csv")


@of_trials
def load_curves(
    trials: Trials, tracking_uri: str | None = None, run_ids: Iterable[str] | None = None
) -> pd.DataFrame:
    """The validation losses of finished trials at each evaluation.

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


def attach(trials: Trials, root: Path, files: Iterable[Path], tracking_uri: str) -> None:
    """Add the files of a report to the sweep's run, in folders as they lie below a root.

    Its page gets a link to the report.

    Raises:
        AnalysisError: the store does not answer.
    """
    run_id = trials.sweep["run_id"]
    with opened(tracking_uri, trials.experiment) as (client, experiment_id):
        for path in files:
            folder = path.parent.relative_to(root).as_posix()
            client.log_artifact(run_id, str(path), None if folder == "." else folder)
        note = client.get_run(run_id).data.tags.get(NOTE, "")
        link = report_link(experiment_id, run_id)
        if link not in note:
            client.set_tag(run_id, NOTE, " · ".join(filter(None, [link, note])))


def report_link(experiment_id: str, run_id: str) -> str:
    """A link to the report of a sweep, in Markdown: the page of its run begins with it."""
    return f"[report]({artifact_link(experiment_id, run_id, REPORT)})"


def store_of(state: Path | None) -> str:
    """The URI of the MLflow store that is used when none is named.

    Args:
        state: the state directory; None takes what the environment says.
    """
    if state is None:
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return uri
        state = Path(os.environ.get("SWEEPS_STATE") or "state")
    return store_uri(state.expanduser().absolute() / STORE)


@contextmanager
def opened(tracking_uri: str, experiment: str) -> Iterator[tuple[Any, str]]:
    """A client of the store, and the id of the experiment.

    Raises:
        AnalysisError: the store has no such experiment, or does not answer, now or in the block.
    """
    client = open_store(tracking_uri, must_exist=True)
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = {one.name for one in client.search_experiments()} - {MLFLOWS_OWN}
            raise AnalysisError(
                f"{without_password(tracking_uri)} has no experiment {experiment!r};"
                f" {nearest(experiment, names)}"
            )
        yield client, found.experiment_id
    except MlflowException as error:
        raise AnalysisError(_why(tracking_uri, error)) from None


def open_store(uri: str, must_exist: bool = False, driven: str | None = None) -> Any:
    """An `MlflowClient` that keeps quiet and gives up soon.

    Args:
        uri: of the store.
        must_exist: do not make a new store where there is no file.
        driven: the sweep that this process runs.

    Raises:
        AnalysisError: the store does not answer, or is not there.
    """
    file = store_file(uri)
    if file is None and uri.startswith("sqlite"):
        raise AnalysisError(f"the MLflow store {uri} keeps nothing; name a file: sqlite:///PATH")
    is_there = file is not None and os.path.exists(file)  # also False where it may not be seen
    if file and is_there:
        follow_move(file, driven)
    elif file and must_exist:
        raise AnalysisError(
            f"there is no MLflow store at {file}; run a sweep first, or name the"
            " directory with --state"
        )
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(OF_SERVERS if file else {})
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except Exception as error:  # of a setting that it cannot read, say
        raise AnalysisError(
            f"MLflow cannot be loaded: {first_line(error)}; look at what the environment sets by"
            " MLFLOW_ variables"
        ) from None

    for name in ("alembic", "urllib3"):  # whose retries are told by what they end with
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs a traceback of what it raises as well, which whoever asked tells.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        if file and not is_there:
            _make_store(file)
        if uri.startswith(DATABASES):
            _ask_database(uri)
        client = MlflowClient(tracking_uri=plain_uri(uri))
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise AnalysisError(_why(uri, error)) from None
    return client


def _ask_database(uri: str) -> None:
    """Connect once: MLflow tries for 100 s."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _make_store(path: Path) -> None:
    """Make a store in a file under another name first: one that is half made is never usable."""
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        MlflowClient(tracking_uri=store_uri(partial)).search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was faster
            _link(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)  # never over what is there
    except FileExistsError:
        raise
    except OSError:  # of a file system without links
        partial.rename(path)


def _why(uri: str, error: BaseException) -> str:
    """What to say of a store that did not do what it was asked."""
    store = f"the MLflow store {without_password(uri)}"
    if getattr(error, "error_code", "") == "UNAUTHENTICATED":
        return (
            f"{store} does not know this user or password; set MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD"
        )
    return f"{store} does not answer: {first_line(error)}"


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


def trials_of(
    experiment: str,
    runs: Iterable[Any],
    sweep: Any = None,
    planned: Sequence[Mapping[str, Any]] | None = None,
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
    about = {}
    if sweep:
        about = {
            "run_id": sweep.info.run_id,
            "experiment_id": sweep.info.experiment_id,
            "status": sweep.info.status,
            **sweep.data.tags,
        }
    settings = _settings_in(rows)
    others = _settings_in(planned or ()) - settings  # no run has them
    whole = typed(experiment, pd.DataFrame([*rows, *(planned or ())]), settings | others)
    table = whole.iloc[: len(rows)].drop(columns=list(others))
    plan = None if planned is None else whole.iloc[len(rows) :]
    return Trials(experiment, table, in_reading_order(settings), about, plan)


def _settings_in(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    names = set[str]().union(*rows)
    return names - {"status", *IDENTITY, *TAGS, *NUMBER_TAGS, *METRICS, *COSTS}


def _row(run: Any) -> dict[str, Any]:
    return {
        **_settings_and_tags(run.data.params, run.data.tags),
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "key": run.data.tags.get("key"),
        "status": run.info.status,
        **{name: run.data.metrics.get(name, math.nan) for name in (*METRICS, *COSTS)},
    }


def planned_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a trial that was planned, from its key, name, params and tags."""
    return {
        **_settings_and_tags(trial["params"], trial["tags"]),
        "run_id": "",
        "name": trial["name"],
        "key": trial["key"],
        "status": WAITING,
        **dict.fromkeys((*METRICS, *COSTS), math.nan),
    }


def _settings_and_tags(params: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    return {
        **{column(name): value for name, value in params.items()},
        **{name: tags.get(name, "") for name in TAGS},
        **{name: tags.get(tag) for name, tag in NUMBER_TAGS.items()},
    }
