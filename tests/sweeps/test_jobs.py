"""What `sweeps submit` and its like refuse; tests/docker/test_cluster.py has them at work."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from sweeps.command import main


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


@pytest.mark.parametrize("command", ["status", "logs", "stop", "resume"])
def test_a_cluster_that_does_not_answer_is_said(command: str) -> None:
    arguments = [] if command == "status" else ["my-sweep"]
    address = "http://127.0.0.1:9"
    result = CliRunner().invoke(main, [command, *arguments, "--address", address])
    refused(result, f"the cluster at {address} did not do it")
