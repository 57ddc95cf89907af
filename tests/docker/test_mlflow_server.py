"""The MLflow server as its container starts it: on PostgreSQL, with passwords, on loopback."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import optuna
import pytest
from click.testing import CliRunner

from analysis.command import main as analysis
from sweeps.cli.main import main as sweeps
from sweeps.execution.service import sync_sweep
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.state import State
from sweeps.search.study_storage import open_study_storage
from sweeps.tracking.description import describe_sweep, describe_trial
from tests.docker.running import (
    MLFLOW_ENTRY,
    Database,
    free_port,
    mlflow_environment,
    mlflow_server,
    postgres,
    secret_file,
)
from tests.sweeps.searches import SWEEP, continued, plan, search, valley
from tests.sweeps.simulation import Simulation
from trainables.errors import UserError

ADMIN_PASSWORD = "correct horse, battery: 100%"
SEARCH = "/api/2.0/mlflow/experiments/search"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
GRID = """
name: grid
corpus: file:play.txt
training: {max_steps: 5, eval_every: 5}
arms:
  - model: {variant: factorized}
    grid: {model.n_embd: [2, 3]}
"""
EVALUATION = {
    "step": 5,
    **dict.fromkeys(("train_loss", "val_loss", "best_val_loss"), 2.5),
    **dict.fromkeys(("training_s", "tokens_per_s"), 1.0),
}
PREPARE = "import os, runpy; e = runpy.run_path({!r}); e['prepare'](e['read_settings'](os.environ))"


@dataclass(frozen=True)
class Server:
    """A running server, and what its administrator knows."""

    url: str
    folder: Path  # everything that it may write is in here
    environment: Mapping[str, str]
    database: Database
    secrets: Mapping[str, str]  # by what they are for

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: str | None = None,
        password: str | None = ADMIN_PASSWORD,
        host: str | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request as it is: no client of MLflow's tidies the path before."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        headers = {"Content-Type": "application/json"} if body else {}
        if password is not None:
            login = base64.b64encode(f"admin:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        if host is not None:
            headers["Host"] = host
        connection.request(method, path, body, headers)
        return connection.getresponse()


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres() as database:
        yield database


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    secrets = folder / "secrets"
    environment = {
        "MLFLOW_BACKEND_STORE_URI": database.create("mlflow"),
        "MLFLOW_DATABASE_PASSWORD_FILE": secret_file(secrets, "database", database.password),
        "MLFLOW_ADMIN_PASSWORD_FILE": secret_file(secrets, "admin", ADMIN_PASSWORD),
        "MLFLOW_SECRET_KEY_FILE": secret_file(secrets, "key"),
        "MLFLOW_ALLOWED_HOSTS": "mlflow, tracking.example.com:8443",
    }
    known = {path.name: path.read_text().strip() for path in secrets.iterdir()}
    with mlflow_server(folder, environment) as url:
        yield Server(url, folder, environment, database, known)


@pytest.mark.parametrize("password", [None, "a guess", ""])
@pytest.mark.parametrize(
    "path", ["/", SEARCH, "/graphql", ARTIFACTS, f"{ARTIFACTS}/0/x", "/api/2.0/mlflow/users/list"]
)
def test_who_has_no_password_sees_nothing(server: Server, path: str, password: str | None) -> None:
    method, body = ("POST", "{}") if path in (SEARCH, "/graphql") else ("GET", None)
    assert server.ask(path, method, body, password).status == 401


def test_who_has_the_password_is_served(server: Server) -> None:
    answer = server.ask(SEARCH, "POST", '{"max_results": 1}')
    assert answer.status == 200
    assert json.load(answer)["experiments"][0]["name"] == "Default"
    assert server.ask("/").status == 200
    assert server.ask("/health", password=None, host="anything").status == 200  # for orchestrators


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("mlflow", 200),
        ("mlflow:{port}", 200),
        ("localhost:{port}", 200),
        ("tracking.example.com:8443", 200),
        ("tracking.example.com", 403),
        ("evil.example.com", 403),
        ("10.evil.com", 403),  # MLflow's own default lets this one in
        ("mlflow:1", 403),
        ("", 403),
    ],
)
def test_it_answers_to_its_own_names_only(server: Server, host: str, status: int) -> None:
    name = host.format(port=urlsplit(server.url).port)
    assert server.ask(SEARCH, "POST", '{"max_results": 1}', host=name).status == status


OUTSIDE = (  # ways to write a path that leads out of a folder
    "../{}",
    "0/../../{}",
    "%2e%2e/{}",
    "0/%2E%2E%2F..%2f{}",
    "%252e%252e%252f{}",
    "file:///../{}",
)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_of_an_artifact_leads_out_of_their_folder(server: Server, method: str) -> None:
    def listing() -> dict[Path, bytes]:
        kept = (path for path in server.folder.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in kept if path.name != "mlflow.log"}

    assert server.ask(f"{ARTIFACTS}/0/inside.txt", "PUT", "ours").status == 200
    assert server.ask(f"{ARTIFACTS}/0/inside.txt").read() == b"ours"
    (server.folder / "secret.txt").write_text("not yours")
    before = listing()
    absolute = str(server.folder / "secret.txt")
    climbing = [way.format("secret.txt") for way in OUTSIDE]
    paths = [*climbing, absolute, quote(absolute, safe=""), f"/{absolute}"]
    for path in paths:
        answer = server.ask(f"{ARTIFACTS}/{path}", method, "theirs" if method == "PUT" else None)
        # 308: from "//" to "/", which makes an absolute path one inside the folder.
        assert answer.status == 308 or answer.status >= 400, (path, answer.status)
        assert b"not yours" not in answer.read(), path
    assert listing() == before


def test_no_secret_is_shown_by_ps_nor_written_anywhere(server: Server) -> None:
    server.ask(SEARCH, "POST", "{}", password="a guess")
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
    port = f"--port {urlsplit(server.url).port} "
    ours = [line for line in listing.stdout.splitlines() if port in line]
    assert len(ours) == 2  # the command and its one worker
    written = [
        path.read_text(errors="replace")
        for path in server.folder.rglob("*")
        if path.is_file() and path.parent.name != "secrets"
    ]
    for name, secret in server.secrets.items():
        assert not any(secret in text for text in (listing.stdout, *written)), name
    (configuration,) = server.folder.glob("tmp/*/basic_auth.ini")
    assert configuration.stat().st_mode & 0o777 == 0o600
    assert configuration.parent.stat().st_mode & 0o777 == 0o700


def test_two_servers_that_start_together_do_not_disturb_each_other(
    server: Server, tmp_path: Path
) -> None:
    environment = mlflow_environment(
        tmp_path, {**server.environment, "MLFLOW_BACKEND_STORE_URI": server.database.create("new")}
    )

    def prepare(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PREPARE.format(str(MLFLOW_ENTRY))],
            env=environment,
            capture_output=True,
            text=True,
        )

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(prepare, range(2)))
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    users = server.database.execute("SELECT username, is_admin FROM users", "new")
    assert users == [("admin", True)]


REFUSALS = {
    "no database is named": ({"MLFLOW_BACKEND_STORE_URI": ""}, "MLFLOW_BACKEND_STORE_URI is not"),
    "an unknown database": (
        {"MLFLOW_BACKEND_STORE_URI": "mysql://me:word@there/db"},
        "names no database that is known here; postgresql+psycopg://",
    ),
    "beyond loopback": ({"MLFLOW_HOST": "0.0.0.0"}, "is beyond loopback, so users must log in"),
    "a name beyond loopback": ({"MLFLOW_HOST": "mlflow"}, "is beyond loopback"),
    "beyond loopback, half a login": (
        {"MLFLOW_HOST": "::", "MLFLOW_ADMIN_PASSWORD_FILE": "good"},
        "is beyond loopback",
    ),
    "half a login": ({"MLFLOW_ADMIN_PASSWORD_FILE": "good"}, "belong together"),
    "a missing file": ({"MLFLOW_SECRET_KEY_FILE": "none"}, "none cannot be read: No such file"),
    "an open file": ({"MLFLOW_SECRET_KEY_FILE": "open"}, "open is open to every user; chmod 600"),
    "a short password": (
        {"MLFLOW_ADMIN_PASSWORD_FILE": "short"},
        "short must hold one line of at least 12",
    ),
    "two lines": ({"MLFLOW_ADMIN_PASSWORD_FILE": "lines"}, "must hold one line"),
    "a wildcard": ({"MLFLOW_ALLOWED_HOSTS": "mlflow,*"}, "MLFLOW_ALLOWED_HOSTS has '*'"),
    "a port that is none": ({"MLFLOW_PORT": "80 80"}, "MLFLOW_PORT=80 80: a number from 1 to"),
    "a folder that cannot be": (
        {"MLFLOW_ARTIFACTS_DESTINATION": "/dev/null/artifacts"},
        "the folder is not writable",
    ),
    "a database that is away": (
        {"MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://me:word@127.0.0.1:{port}/db"},
        "the database does not answer after 0 s: connection failed",
    ),
}


@pytest.mark.parametrize(("settings", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_it_refuses_to_start_in_a_line(
    settings: Mapping[str, str], reason: str, tmp_path: Path
) -> None:
    secret_file(tmp_path, "good")
    secret_file(tmp_path, "short", "elevenchars")
    secret_file(tmp_path, "lines", "a line of some length\nand another")
    secret_file(tmp_path, "open", mode=0o644)
    given = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_DATABASE_WAIT_S": "0",
        **{name: value.replace("{port}", str(free_port())) for name, value in settings.items()},
    }
    done = subprocess.run(
        [sys.executable, str(MLFLOW_ENTRY)],
        cwd=tmp_path,
        env=mlflow_environment(tmp_path, given),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("mlflow_server: ")
    assert reason in line
    assert "word" not in line.replace("password", "").replace("PASSWORD", "")
    assert not (tmp_path / "mlflow.db").exists()


def test_a_wrong_password_is_said_and_nothing_is_lost(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, made = State(tmp_path), plan(GRID)
    with closing(Outbox(state.sweep("grid") / "outbox.db", "grid")) as outbox:
        outbox.describe(
            describe_sweep(made), {trial.key: describe_trial(made, trial) for trial in made.trials}
        )
        for trial in made.trials:
            outbox.record(TrialEvent(trial.key, "started"))
            outbox.record(TrialEvent(trial.key, "progressed", step=5, evaluations=[EVALUATION]))
            outbox.record(TrialEvent(trial.key, "finished"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guess")
    unknown = f"the MLflow store {server.url} does not know this user or password; set MLFLOW_TRACK"
    said: list[str] = []

    with monkeypatch.context() as patch:
        patch.setattr("sweeps.tracking.delivery.NO_PROGRESS_S", 0.5)
        assert (
            sync_sweep("grid", state, server.url, None, said.append).unsent == len(made.trials) + 1
        )
    (line,) = said
    assert line.startswith(f"offline MLflow takes no events now, they are kept: {unknown}")
    done = CliRunner().invoke(analysis, ["rankings", "grid", "--state", str(tmp_path)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"analysis: {unknown}")

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)
    assert sync_sweep("grid", state, server.url, None, said.append).unsent == 0
    done = CliRunner().invoke(analysis, ["rankings", "grid", "--state", str(tmp_path)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(sweeps, ["ui", "grid", "--state", str(tmp_path)])
    assert done.exit_code == 0
    assert done.output.startswith(f"grid ranking: {server.url}/#/experiments/")


def test_studies_are_kept_in_the_database(database: Database, tmp_path: Path) -> None:
    database.create("studies")
    url = database.uri("studies", with_password=True)
    made = plan(SWEEP, "search.trials=6")
    storage, _ = open_study_storage(url, tmp_path, lambda opened: opened)
    Simulation(search(made, storage), valley).run()

    storage, lost = open_study_storage(url, tmp_path, lambda opened: opened)
    again = search(plan(SWEEP, "search.trials=8"), storage)
    Simulation(continued(again), valley).run()
    (summary,) = optuna.get_all_study_summaries(storage)
    assert (summary.n_trials, lost) == (8, "")

    with pytest.raises(UserError, match="password authentication failed") as refused:
        open_study_storage(
            url.replace(database.password, "a-guess"), tmp_path, lambda opened: opened
        )
    assert "a-guess" not in str(refused.value)


def test_a_second_start_keeps_everything_and_takes_the_new_password(
    server: Server, tmp_path: Path
) -> None:
    """The last one here: the server of the others forgets its password a minute later."""
    name = json.dumps({"name": "kept"})
    assert server.ask("/api/2.0/mlflow/experiments/create", "POST", name).status == 200
    get = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=kept"
    password = "another password"
    changed = {"MLFLOW_ADMIN_PASSWORD_FILE": secret_file(tmp_path, "admin", password)}
    with mlflow_server(tmp_path / "second", {**server.environment, **changed}) as url:
        second = replace(server, url=url)
        assert second.ask(get).status == 401
        assert second.ask(get, password=password).status == 200
