"""What the two programs say of themselves."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from analysis.command import main as analysis
from sweeps.cli.main import main as sweeps

PROGRAMS = {"sweeps": sweeps, "analysis": analysis}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_description_of_a_command_is_cut(name: str) -> None:
    program = PROGRAMS[name]
    shown = CliRunner().invoke(program, ["-h"], terminal_width=80).output
    lines = shown.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == sorted(program.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines), shown
    assert max(map(len, lines)) < 80


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_no_command_hints_at_the_help(name: str) -> None:
    refused = CliRunner().invoke(PROGRAMS[name], ["help"], prog_name=name)
    assert refused.exit_code == 2
    assert f"Try '{name} --help' for help." in refused.stderr
