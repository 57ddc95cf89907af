"""The MLflow store: its client, its runs, and the names of a sweep's artifacts and tags."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError, nearest
from analysis.text.links import artifact_link
from analysis.text.messages import first_line, without_password
from analysis.trials.empty_store import write_empty_store
from analysis.trials.sqlite_store import STORE, follow_move, plain_uri, store_file, store_uri
from analysis.trials.table import Trials

if TYPE_CHECKING:  # also for the modules that read runs
    from mlflow import MlflowClient as MlflowClient
    from mlflow.entities import Run as Run

PAGE = 1_000
MLFLOWS_OWN = "Default"  # an experiment that each store has
PLAN = "plan.json"  # artifact of a sweep's run: a list of the trials that it planned
PLANNED = "planned"  # its tag: how many they are
PICTURE = "overview.png"  # artifact of a sweep's run, which its page shows
REPORT = "report.html"  # artifact of a sweep's run
DECIDE = "decide"  # its tag, if it stops when its claims are decided: JSON, how it does
CLAIMS_HISTORY = (
    "claims_history"  # its tag: JSON, an entry for each text of claims, first one first
)
CLAIMS_IN_FORCE = "claims_sha256"  # its tag: of the claims that it was run with last
LOOKS_TABLE = "looks.csv"  # its artifact: a row for each look and claim
NOTE = "mlflow.note.content"  # tag: Markdown that the page of a run shows
DEFAULTS = {  # settings of MLflow, unless the user has set them
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
OF_SERVERS = {  # settings of MLflow that a store in a file cannot have
    "MLFLOW_ENABLE_WORKSPACES": "false",  # otherwise it is empty, or cannot be opened again
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "",  # a connection that threads share mixes their writes
}
DATABASES = ("postgresql", "mysql", "mssql")


def attach(trials: Trials, root: Path, files: Iterable[Path], tracking_uri: str) -> None:
    """Add the files of a report to the sweep's run, and link the report on the page of the run.

    Args:
        trials: of the sweep.
        root: the files keep their folders below it.
        files: to add.
        tracking_uri: of the MLflow store.

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
    """Return a link to the report of a sweep, in Markdown: the page of its run begins with it."""
    return f"[report]({artifact_link(experiment_id, run_id, REPORT)})"


def store_of(state: Path | None) -> str:
    """Return the URI of the MLflow store that is used when none is named.

    Args:
        state: the state directory; None takes what the environment says.
    """
    if state is None:
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return uri
        state = Path(os.environ.get("SWEEPS_STATE") or "state")
    return store_uri(state.expanduser().absolute() / STORE)


@contextmanager
def opened(tracking_uri: str, experiment: str) -> Iterator[tuple[MlflowClient, str]]:
    """Context manager: a client of the store, and the id of an experiment.

    Raises:
        AnalysisError: the store has no such experiment, or does not answer, now or in the block.
    """
    client = open_store(tracking_uri, must_exist=True)
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = {known.name for known in client.search_experiments()} - {MLFLOWS_OWN}
            raise AnalysisError(
                f"{without_password(tracking_uri)} has no experiment {experiment!r};"
                f" {nearest(experiment, names)}"
            )
        yield client, found.experiment_id
    except MlflowException as error:
        raise AnalysisError(_why(tracking_uri, error)) from None


def open_store(uri: str, must_exist: bool = False, driven: str | None = None) -> MlflowClient:
    """Return a client of a store that logs nothing and gives up soon.

    Args:
        uri: of the store.
        must_exist: do not create a store if there is no file.
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
    _load_mlflow(is_file=file is not None)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

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


def _load_mlflow(is_file: bool) -> None:
    """Import MLflow with our settings; `is_file` if the store is in a file.

    Raises:
        AnalysisError: it cannot be loaded.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(OF_SERVERS if is_file else {})
    try:
        import mlflow.exceptions  # noqa: F401
        import sqlalchemy.exc  # noqa: F401
    except Exception as error:  # of a setting that it cannot read, say
        raise AnalysisError(
            f"MLflow cannot be loaded: {first_line(error)}; look at what the environment sets by"
            " MLFLOW_ variables"
        ) from None
    for name in ("alembic", "urllib3"):  # they log each retry; the last one raises an error anyway
        logging.getLogger(name).setLevel(logging.ERROR)
    # It also logs a traceback of each error that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _ask_database(uri: str) -> None:
    """Connect once, to fail at once: MLflow would try for 100 s."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _make_store(path: Path) -> None:
    """Create a store in a file, under another name until it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written, migrated = (
        path.with_name(f"{path.name}.{os.getpid()}.{kind}.partial") for kind in ("new", "migrated")
    )
    try:
        partial = written if _is_written(written) else migrated
        if partial == migrated:
            migrate(migrated)
        with contextlib.suppress(FileExistsError):  # another process was faster
            _link(partial, path)
    finally:
        for partial in (written, migrated):
            partial.unlink(missing_ok=True)


def _is_written(path: Path) -> bool:
    """Make a store of our own tables; return whether MLflow takes them."""
    from mlflow.exceptions import MlflowException

    write_empty_store(path)
    try:
        migrate(path)
    except MlflowException:  # they are of another version
        return False
    return True


def migrate(path: Path) -> None:
    """Let MLflow open a store in a file, and make the tables of a new one."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=store_uri(path)).search_experiments(max_results=1)


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)  # never replaces an existing file
    except FileExistsError:
        raise
    except OSError:  # of a file system without links
        partial.rename(path)


def _why(uri: str, error: BaseException) -> str:
    """Return the message for a store that failed."""
    store = f"the MLflow store {without_password(uri)}"
    if getattr(error, "error_code", "") == "UNAUTHENTICATED":
        return (
            f"{store} does not know this user or password; set MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD"
        )
    return f"{store} does not answer: {first_line(error)}"


def runs_of(client: MlflowClient, experiment_id: str, role: str | None = None) -> Iterator[Run]:
    """Yield the runs of an experiment that have a role, page by page.

    Roles are ``trial``, ``sweep``, and ``removed`` for a trial that is no longer part of its sweep;
    None takes all runs.
    """
    query = f"tags.role = '{role}'" if role else ""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
