"""Paths that users name and that cannot be: one line, exit code 2, whatever the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import analysis.command
import sweeps.cli.main
from trainables.data.verse import write_play
from trainables.files import directory_at

LONG = "x" * 300
SWEEP = "{name: study, corpus: 'file:play.txt', arms: [{model: {variant: bigram}}]}"
RUNS = "variant,seed,val_loss\nbigram,1,2.5\nbigram,2,2.4\n"
COMMANDS = {  # of each program, with the options that name a folder
    "plan sweep.yaml": ("--state",),
    "run sweep.yaml": ("--state",),
    "verify-pack sweep.yaml": ("--state",),
    "sync": ("--state",),
    "ui": ("--state",),
    "sample study/best": ("--state",),
    "rankings study": ("--state", "--out"),
    "conclusions study": ("--state", "--out"),
    "report study": ("--state", "--out"),
    "importance study": ("--state", "--out"),
    "compare study": ("--state", "--out", "--corpora"),
}
CASES = [(command, option) for command, options in COMMANDS.items() for option in options]
NO_FOLDER = {  # what is named, and a word of the reason
    "": "empty",
    "file": "not a",
    "file/below": "Not a directory",
    "loop/below": "Too many levels of symbolic links",
    LONG: "File name too long",
    "pipe": "not a",
    "~nosuchuser/x": "home directory",
    "nul\0": "no file can have this name|embedded null",
    "\udce9": "its name is not UTF-8",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("ray", "mlflow"):
        monkeypatch.setitem(sys.modules, engine, None)  # importing it fails
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEPS_STATE", "SWEEPS_CORPORA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    Path("play.txt").write_text(write_play(characters=2_000))
    Path("sweep.yaml").write_text(SWEEP)
    Path("runs.csv").write_text(RUNS)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    os.mkfifo("pipe")


@pytest.mark.parametrize(("command", "option"), CASES)
def test_a_path_that_can_be_no_folder_is_refused(command: str, option: str) -> None:
    is_ours = command.split()[0] in sweeps.cli.main.main.commands
    program = sweeps.cli.main.main if is_ours else analysis.command.main
    before = sorted(Path().iterdir())
    for path, reason in NO_FOLDER.items():
        result = CliRunner().invoke(program, [*command.split(), option, path])
        about = (path, result.output)
        assert result.exit_code == 2, about
        assert result.exception is None or isinstance(result.exception, SystemExit), about
        last = result.output.rstrip("\n").splitlines()[-1]
        assert option in last, about
        assert any(word.lower() in last.lower() for word in reason.split("|")), about
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("command", ["plan", "run", "verify-pack"])
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (LONG, "File name too long"),
        ("pipe", "Not a regular file"),
        ("/dev/zero", "Not a regular file"),
        ("~nosuchuser/x", "home directory ~nosuchuser is not known"),
    ],
)
def test_a_corpus_that_can_be_no_file_is_refused(command: str, given: str, reason: str) -> None:
    result = CliRunner().invoke(
        sweeps.cli.main.main, [command, "sweep.yaml", f"corpus=file:{given}"]
    )
    assert result.exit_code == 2, result.output
    assert len(result.output.splitlines()) == 1
    assert reason in result.output


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("file", "It is not a directory"),
        ("file/below", "Not a directory"),
        ("~nosuchuser/x", "home directory"),
        (LONG, "File name too long"),
    ],
)
def test_storage_that_can_be_no_folder_is_refused(given: str, reason: str) -> None:
    arguments = ["run", "sweep.yaml", "--storage-uri", given]
    result = CliRunner().invoke(sweeps.cli.main.main, arguments)
    assert result.exit_code == 2, result.output
    assert len(result.output.splitlines()) == 1
    assert reason in result.output
    assert "--storage-uri" in result.output


def test_a_folder_need_not_exist(tmp_path: Path) -> None:
    assert directory_at("new/below") == tmp_path / "new" / "below"
    assert not Path("new").exists()
    Path("link").symlink_to(tmp_path, target_is_directory=True)
    assert directory_at("link") == tmp_path / "link"
    with pytest.raises(OSError, match="It is a link to what does not exist"):
        directory_at("dangling")


def test_a_home_is_expanded_for_the_store_and_the_reports_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWEEPS_STATE", "~/state")
    result = CliRunner().invoke(analysis.command.main, ["rankings", "runs.csv"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "home/state/reports/runs/ranking.csv").exists()
    assert not Path("~").exists()


def test_a_working_directory_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OSError, match="The working directory does not exist any more"):
        directory_at("state")
    result = CliRunner().invoke(analysis.command.main, ["rankings", "study"])
    assert result.exit_code == 2
    assert result.output == (
        "analysis: --state 'state' cannot be used: the working directory does not exist any more\n"
    )
    monkeypatch.chdir(tmp_path)


def test_a_command_in_a_working_directory_that_is_gone_says_so(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); from sweeps.__main__ import main; main()"
    gone = tmp_path / "gone"
    for command in ("list", "plan quickstart"):
        gone.mkdir()
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *command.split()],
            cwd=gone, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (
            2,
            "sweeps: the working directory does not exist any more; go to another\n",
        )


UNREADABLE = """
import sys; from pathlib import Path; from click.testing import CliRunner
import analysis.command, sweeps.cli.main
for line in sys.stdin.read().splitlines():
    program, *arguments = line.split()
    main = {"sweeps": sweeps.cli.main.main, "analysis": analysis.command.main}[program]
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), line
    print(result.exit_code, result.output.strip().replace("\\n", " / "))
"""


def test_an_unreadable_folder_is_named() -> None:
    Path("locked/in").mkdir(parents=True)
    shutil.copy("play.txt", "locked/in")
    Path("locked").chmod(0)
    commands = [
        "sweeps plan sweep.yaml --state locked",
        "sweeps plan sweep.yaml --state locked/in",
        "sweeps run sweep.yaml --state locked/new",
        "sweeps plan sweep.yaml corpus=file:locked/in/play.txt",
        "sweeps run sweep.yaml --storage-uri locked/in",
        "sweeps ui --state locked/in",
        "analysis rankings study --state locked/in",
        "analysis rankings runs.csv --out locked/in",
        "analysis compare study --corpora locked/in",
    ]
    try:
        lines = _without_privileges(UNREADABLE, commands)
    finally:
        Path("locked").chmod(0o700)
    for command, line in zip(commands, lines, strict=True):
        assert line.startswith("2 "), (command, line)
        assert "Permission denied" in line, (command, line)
        assert " / " not in line, (command, line)


def _without_privileges(script: str, lines: list[str]) -> list[str]:
    """What a script prints for some lines, in a process that may read what its user may."""
    command = [sys.executable, "-c", script]
    if os.geteuid() == 0:  # who may read all, but for this
        if not (drop := shutil.which("setpriv")):
            pytest.skip("root may read any folder, and there is no setpriv")
        command = [drop, "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
