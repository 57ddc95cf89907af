"""What `sweeps submit` and its like refuse; tests/docker/test_cluster.py has them at work."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sweeps.cli.main import main
from sweeps.cluster import jobs as client
from sweeps.cluster.jobs import NotThereError
from sweeps.cluster.submission import KEPT, NOT_KEPT, SCRIPT, resubmit_command
from sweeps.process.resuming import AGAIN
from sweeps.process.summary import WANTS_JSON, Summary
from tests.sweeps.job_clients import ForgetfulClient, RecordingClient


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert all(part in result.stderr for part in parts), result.stderr
    assert result.stderr.startswith("sweeps: ")
    assert "Traceback" not in result.output


def test_a_password_in_what_is_sent_to_a_cluster_is_refused() -> None:
    override = "search.storage=postgresql+psycopg://me:hidden@host/studies"
    result = CliRunner().invoke(main, ["submit", "quickstart", override])
    refused(
        result, "search.storage", "a password in a command or a sweep file is seen", "PGPASSWORD"
    )
    assert "hidden" not in result.output


NOBODY = "http://127.0.0.1:9"
COMMANDS = {
    "status": ["status"],
    "logs": ["logs", "study"],
    "follow": ["logs", "study", "-f"],
    "stop": ["stop", "study"],
    "resume": ["resume", "study"],
    "submit": ["submit", "quickstart"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_that_does_not_answer_is_said(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_STATE", str(tmp_path / "state"))
    result = CliRunner().invoke(main, [*COMMANDS[command], "--address", NOBODY])
    remedy = "give its address with --address or RAY_API_SERVER_ADDRESS"
    refused(result, f"sweeps: no Ray cluster answers at {NOBODY}; {remedy}")
    is_sent = "run the sweep here with `sweeps run quickstart`" in result.stderr
    assert is_sent == (command == "submit")
    assert len(result.stderr.splitlines()) == 1


def test_a_cluster_that_is_silent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REQUEST_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = CliRunner().invoke(main, ["status", "--address", address])
    refused(result, f"sweeps: no Ray cluster answers at {address}")


def test_status_without_a_cluster_and_without_sweeps_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr(client, "JobClient", unreachable)
    result = CliRunner().invoke(main, ["status", "--state", str(tmp_path / "state")])
    refused(
        result,
        f"there is no sweep in {tmp_path / 'state'} yet, and no Ray cluster answers at"
        " http://127.0.0.1:8265; give its address with --address",
    )


@pytest.mark.parametrize("address", ["ftp://host:8265", "ray://host:10001", "http://", "http://["])
def test_what_is_no_address_of_a_dashboard_is_refused(address: str) -> None:
    result = CliRunner().invoke(main, ["status", "--address", address])
    refused(result, f"{address!r} is no address of a cluster's dashboard", "http://HOST:8265")


def test_an_address_needs_no_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(client, "JobClient", asked.append)
    client.Cluster("host:8265")
    assert asked == ["http://host:8265"]


def unreachable(_: str) -> None:
    raise ConnectionError("Failed to connect to Ray at address: nowhere.")


def test_a_job_knows_the_command_that_lets_it_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "JobClient", RecordingClient)
    cluster = client.Cluster("http://127.0.0.1:8265")
    cluster.resume("study", [])
    environment = cluster._client.submitted["runtime_env"]["env_vars"]
    assert environment[AGAIN] == "sweeps resume study"
    assert environment[WANTS_JSON]


def test_a_sweep_that_the_head_has_forgotten_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "JobClient", ForgetfulClient)
    monkeypatch.setattr(ForgetfulClient, "said", KEPT)
    cluster = client.Cluster("http://127.0.0.1:8265")
    cluster.resume("study", [])
    assert cluster._client.submitted["metadata"]["sweep"] == "study"


def test_what_was_never_submitted_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "JobClient", ForgetfulClient)
    monkeypatch.setattr(ForgetfulClient, "said", NOT_KEPT)
    cluster = client.Cluster("http://127.0.0.1:8265")
    with pytest.raises(NotThereError, match="the cluster has no sweep 'study'"):
        cluster.resume("study", [])
    assert cluster._client.submitted == {}


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_sweep_is_resumed_from_what_the_state_directory_has(
    is_kept: bool, tmp_path: Path
) -> None:
    kept = tmp_path / "sweeps" / "study" / "submission"
    if is_kept:
        kept.mkdir(parents=True)
        (kept / SCRIPT).write_text('echo "with $1"')
    done = subprocess.run(
        ["sh", "-c", resubmit_command("study", ["--retry-failed"])],
        env={**os.environ, "SWEEPS_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = f"{KEPT}\nwith --retry-failed\n" if is_kept else f"{NOT_KEPT}\n"
    assert (done.stdout, done.returncode) == (expected, 0 if is_kept else 2)


def test_the_progress_of_a_job_is_read_and_people_do_not_see_its_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "JobClient", RecordingClient)
    cluster = client.Cluster("http://127.0.0.1:8265")
    job = cluster.newest("study")
    assert job.progress is None
    assert cluster.with_progress(job).progress == Summary(2, 9, 0, 1, 0, 1.5, "x", "1 s")
    first, last = cluster.logs(job).splitlines()
    assert first.startswith("2/9 done")
    assert last == "ended"
