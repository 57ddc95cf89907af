"""A password in a command or a sweep file is refused, and shown nowhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click import Group
from click.testing import CliRunner

from analysis.command import main as analysis
from sweeps.cli.main import main as sweeps
from sweeps.planning.planner import make_plan
from sweeps.records.state import State
from trainables.errors import UserError

SERVER = "http://me:hidden@127.0.0.1:9"
DATABASE = "postgresql+psycopg://me:hid/den@127.0.0.1:9/base"
IN_QUERY = "postgresql+psycopg://127.0.0.1:9/base?user=me&password=hidden"
TOKEN = "https://hidden@host/x"
NO_SCHEME = "//me:hidden@host/x"
SWEEP = """
name: study
corpus: embedded
training: {max_steps: 2, eval_every: 1}
arms: [{model: {variant: bigram}}]
"""
Invoke = Callable[..., str]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    monkeypatch.chdir(tmp_path)
    for variable in ("SWEEPS_STATE", "MLFLOW_TRACKING_URI", "SWEEPS_STORAGE_URI"):
        monkeypatch.delenv(variable, raising=False)
    Path("sweep.yaml").write_text(SWEEP)


def refused(command: Group, *arguments: str) -> str:
    """What a command says that is refused, which is no password."""
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2, done.output
    assert "hid" not in done.output
    assert "Traceback" not in done.output
    return done.stderr


@pytest.mark.parametrize("uri", [SERVER, DATABASE, IN_QUERY, TOKEN, NO_SCHEME])
@pytest.mark.parametrize("path", ["tracking.uri", "search.storage", "storage.uri", "corpus"])
@pytest.mark.parametrize("command", ["plan", "run", "verify-pack", "submit"])
def test_an_override_with_a_password_is_refused(command: str, path: str, uri: str) -> None:
    said = refused(sweeps, command, "sweep.yaml", f"{path}={uri}")
    assert said.startswith(f"sweeps: {path}: a password in a command or a sweep file is seen by")
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert not Path("state").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "sweep.yaml", "--tracking-uri", SERVER),
        ("run", "sweep.yaml", "--storage-uri", "ftp://me:hidden@host/x"),
        ("sync", "study", "--tracking-uri", DATABASE),
        ("ui", "--tracking-uri", IN_QUERY),
        ("sample", "study/best", "--tracking-uri", SERVER),
    ],
)
def test_an_option_with_a_password_is_refused(arguments: tuple[str, ...]) -> None:
    said = refused(sweeps, *arguments)
    assert said.startswith(f"sweeps: {arguments[2] if len(arguments) > 3 else '--tracking-uri'}: ")
    assert not Path("state").exists()


@pytest.mark.parametrize("command", ["rankings", "conclusions", "report", "importance", "compare"])
def test_the_analysis_refuses_it_as_well(command: str) -> None:
    said = refused(analysis, command, "study", "--tracking-uri", DATABASE)
    assert said.startswith("analysis: --tracking-uri: a password in a command is seen by others")


@pytest.mark.parametrize("uri", [SERVER, DATABASE, IN_QUERY, TOKEN, NO_SCHEME])
@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("tracking.uri", "tracking: {{uri: '{}'}}"),
        ("search.storage", "search: {{storage: '{}'}}"),
        ("storage.uri", "storage: {{uri: '{}'}}"),
    ],
)
def test_a_sweep_file_with_a_password_is_refused(path: str, setting: str, uri: str) -> None:
    Path("sweep.yaml").write_text(f"{SWEEP}{setting.format(uri)}\n")
    said = refused(sweeps, "run", "sweep.yaml")
    assert said.startswith(f"sweeps: sweep.yaml: {path}: a password in a command or a sweep file")
    with pytest.raises(UserError, match="is seen by others"):
        make_plan("sweep.yaml", [], State(Path("state").absolute()))


@pytest.mark.parametrize("uri", [SERVER, DATABASE, IN_QUERY])
def test_a_password_from_the_environment_is_used_and_not_shown(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for command, arguments in ((analysis, ["rankings", "study"]), (sweeps, ["ui"])):
        said = refused(command, *arguments)
        assert "127.0.0.1:9" in said
        assert "does not answer" in said


@pytest.mark.parametrize("uri", ["ftp://me:hidden@host/x", "s3://bucket/x?secret=hidden"])
def test_a_storage_uri_is_kept_so_it_has_none_at_all(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_STORAGE_URI", uri)
    assert "password" in refused(sweeps, "run", "sweep.yaml")
