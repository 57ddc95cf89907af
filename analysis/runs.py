"""From MLflow, or a CSV file, to a table with a row for each trial."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.csv_files import read_csv
from analysis.errors import AnalysisError, listed
from analysis.messages import first_line, without_password
from analysis.search import Search, read_search
from analysis.sqlite_store import STORE, follow_move, is_driven, plain_uri, store_file, store_uri

PAGE = 1_000
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
LARGEST = 1e100  # of a number: powers of larger ones overflow
METRICS = ("train_loss", "val_loss", "best_val_loss", "tokens_per_second", "training_seconds")
IDENTITY = ("run_id", "name", "key")
TAGS = ("failure", "stage", "stopped", "study", "hardware", "code_version", "corpus_digest")
NUMBER_TAGS = {"suggestion": "suggestion", "arm": "arm", "rung": "rung", "picked": "rank"}
COSTS = ("parameters", "training_tokens")  # metrics of a search that has them for an objective
RESERVED = {  # columns of the tables here, in rankings, of studies and in figures
    *IDENTITY,
    *TAGS,
    *NUMBER_TAGS,
    *METRICS,
    *COSTS,
    *("outcome", "search_loss", "search_n", "last_loss", "edges", "suggestions", "finished"),
    *("failed", "steps", "full_steps", "best"),
    *("status", "why"),
    *("rank", "n", "low", "high", "left_out", "run_ids"),
    *("configuration", "label", "placed", "reference", "group", "best_of_group", "mean", "shown"),
    *("row", "column", "line"),
}
SUFFIX = "_setting"
# Settings in the order in which people read them; others follow in the order of the alphabet.
FIRST_PARAMS = ("variant", "pe_type", "n_embd", "block_size")


@dataclass(frozen=True)
class Trials:
    """The trials of an experiment.

    ``table`` has one row a trial:

    * ``run_id``, ``name``, ``key``: of its run in MLflow;
    * ``status``: FINISHED, FAILED, KILLED, RUNNING; ``failure``: why it failed;
    * ``stage``: "search" for a trial that a search suggested, "confirm" for one of a winner that
      was trained again on fresh seeds, else empty; ``stopped``: why it was stopped before its last
      step, else empty; ``study``: the study that both are of;
    * ``suggestion``: its number in the study; ``rung``: the last step at which it was judged;
      ``picked``: 1 for a trial of the best configuration of a study by the search's own losses, 2
      and so on; ``arm``: of the sweep file, counted from 0 (all four missing where they have no
      meaning, and in a table from a file);
    * ``hardware``, ``code_version``, ``corpus_digest``: what it ran on, and with what;
    * a column for each name in ``params``, its settings: numbers where all values are; ``seed`` is
      0 where it is not known, and a setting with the name of another column is NAME_setting;
    * the metrics of the last step: ``train_loss``, ``val_loss``, ``best_val_loss`` in nats per
      character, ``tokens_per_second``, ``training_seconds`` (without evaluation).
    """

    experiment: str
    table: pd.DataFrame
    params: tuple[str, ...]
    sweep: Mapping[str, str] = field(default_factory=dict)  # its run: tags, run_id, status

    @property
    def status(self) -> str:
        """Of the sweep as a whole; a table is finished."""
        return self.sweep.get("status", "FINISHED")

    @property
    def plan_known(self) -> bool:
        """Whether what the sweep planned and did not start has rows, too."""
        return False

    @cached_property
    def search(self) -> Search | None:
        """How the sweep searched; None if it did not.

        Raises:
            AnalysisError: what its run says of that cannot be read.
        """
        return read_search(self.sweep.get("search"))

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The params that differ between trials, one that some trials lack included."""
        return tuple(name for name in self.params if self.table[name].nunique(dropna=False) > 1)

    @property
    def settings(self) -> tuple[str, ...]:
        """The params that differ between configurations: all that vary but the seed."""
        return tuple(name for name in self.varying if name != "seed")

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The rows that count in a ranking; their val_loss is a finite number."""
        return self.table[(self.table["status"] == "FINISHED") & is_finite(self.table["val_loss"])]

    @cached_property
    def comparable(self) -> pd.DataFrame:
        """The rows that bear on a conclusion: finished, trained to the end, not picked by a search.

        What a search suggests was chosen for its losses, so its best is better than it would be
        again.
        """
        rows = self.finished
        return rows[(rows["stage"] == "") & (rows["stopped"] == "")]

    @property
    def left_out(self) -> pd.DataFrame:
        """The other rows, with a column ``why``."""
        return self.other_than(self.comparable)

    def other_than(self, counted: pd.DataFrame) -> pd.DataFrame:
        """The rows that are not among those that count, with a column ``why``."""
        rows = self.table.drop(counted.index)
        return rows.assign(why=[_why_left_out(row) for row in rows.to_dict("records")])


def is_finite(values: pd.Series) -> pd.Series:
    """Which are numbers that statistics and figures can do with: not missing, not too large."""
    return values.astype(float).abs() <= LARGEST


def _why_left_out(row: Mapping[Hashable, Any]) -> str:
    if row["status"] != "FINISHED":
        return f"{row['status']}: {row['failure']}".removesuffix(": ")
    if row["stopped"]:
        return f"stopped early: {row['stopped']}"
    if row["stage"]:
        is_winner = row["stage"] == "confirm"
        return (
            "confirmed, but not the search's first choice" if is_winner else "suggested by a search"
        )
    if abs(row["val_loss"]) <= LARGEST:
        return "plain, where a confirmed winner or its seeds are what counts"
    return f"val_loss is {row['val_loss']}"


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
        return _read_csv(Path(experiment))
    uri = tracking_uri or store_of(None)
    with _little_garbage(), opened(uri, experiment) as (client, experiment_id):
        runs = runs_of(client, experiment_id, "trial")
        parent = next(runs_of(client, experiment_id, "sweep"), None)
        trials = trials_of(experiment, runs, parent)
    file = store_file(uri)
    return _ended(trials) if file and is_driven(file, experiment) is False else trials


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
    """Add files to the artifacts of the sweep's run, in folders as they lie below a root.

    Raises:
        AnalysisError: the store does not answer.
    """
    with opened(tracking_uri, trials.experiment) as (client, _):
        for path in files:
            folder = path.parent.relative_to(root).as_posix()
            client.log_artifact(
                trials.sweep["run_id"], str(path), None if folder == "." else folder
            )


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
            names = sorted(one.name for one in client.search_experiments())
            raise AnalysisError(
                f"{without_password(tracking_uri)} has no experiment {experiment!r}; there are:"
                f" {listed(names)}"
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


def trials_of(experiment: str, runs: Iterable[Any], sweep: Any = None) -> Trials:
    """Make the table from MLflow's runs.

    Args:
        experiment: its name.
        runs: of the trials.
        sweep: the run of the sweep itself.

    Raises:
        AnalysisError: there are none.
    """
    names: set[str] = set()
    rows = []
    for run in runs:
        names |= {_column(name) for name in run.data.params}
        rows.append(_row(run))
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
    return _typed(experiment, pd.DataFrame(rows), names, about)


def _read_csv(path: Path) -> Trials:
    table = read_csv(path)
    for name in METRICS:
        try:
            table[name] = table[name].astype(float) if name in table else math.nan
        except ValueError as error:
            raise AnalysisError(f"{path}: {name}: {first_line(error)}") from None
    if table.empty or table["val_loss"].isna().all():
        raise AnalysisError(f"{path} has no val_loss; expected a row a trial with that column")
    known = {"status": "FINISHED", **dict.fromkeys(TAGS, "")}
    names = set(table.columns) - {*METRICS, *IDENTITY, *known}
    table = table.rename(columns={name: _column(name) for name in names})
    names = {_column(name) for name in names}
    for name, default in known.items():
        table[name] = table[name].fillna(default) if name in table else default
    rows = pd.Series([f"row {index + 2}" for index in range(len(table))], dtype=str)
    for name in IDENTITY:
        table[name] = table[name].fillna(rows) if name in table else rows
    return _typed(path.stem, table, names, {})


def _typed(
    experiment: str, table: pd.DataFrame, names: Iterable[str], sweep: Mapping[str, str]
) -> Trials:
    params = sorted(names, key=_reading_order)
    for name in params:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.notna() == table[name].notna()).all():
            table[name] = numbers.convert_dtypes()
    if "seed" not in table:
        table["seed"] = 0
    seeds = pd.to_numeric(table["seed"], errors="coerce")
    if seeds.isna().any() or (seeds % 1 != 0).any():
        raise AnalysisError(
            f"{experiment}: a seed is not a whole number, or missing in some trials"
        )
    table["seed"] = seeds.astype(object).map(int)
    for name in table.columns.intersection(list(NUMBER_TAGS)):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.isna() & table[name].notna()).any() or (numbers % 1 > 0).any():
            raise AnalysisError(f"{experiment}: the tag {NUMBER_TAGS[name]!r} is no whole number")
        table[name] = numbers.astype("Int64")
    return Trials(experiment, table, tuple(params), sweep)


def _row(run: Any) -> dict[str, Any]:
    metrics = {name: run.data.metrics.get(name, math.nan) for name in (*METRICS, *COSTS)}
    identity = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "key": run.data.tags.get("key"),
        "status": run.info.status,
    }
    tags = {name: run.data.tags.get(name, "") for name in TAGS}
    numbers = {name: run.data.tags.get(tag) for name, tag in NUMBER_TAGS.items()}
    params = {_column(name): value for name, value in run.data.params.items()}
    return {**params, **identity, **tags, **numbers, **metrics}


def _column(param: str) -> str:
    """The column of a param: another one for each."""
    return f"{param}{SUFFIX}" if re.sub(f"({SUFFIX})*$", "", param) in RESERVED else param


def _reading_order(name: str) -> tuple[int, str]:
    known = FIRST_PARAMS.index(name) if name in FIRST_PARAMS else len(FIRST_PARAMS)
    return known, name
