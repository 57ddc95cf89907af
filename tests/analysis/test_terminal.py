"""What is printed: nothing in it is obeyed, nothing is cut, and any encoding will do."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from analysis.text.terminal import pass_on, table, visible
from sweeps.cli import outcome
from sweeps.cli.main import main
from sweeps.cluster import jobs as client
from sweeps.execution.progress import Before, Progress
from sweeps.process.summary import Summary
from sweeps.records.events import TrialEvent
from sweeps.search.queue import TrialSource
from trainables.data.verse import write_play

HOSTILE = ["[/red]x", "[x](y)", "a[/b].txt", ":smile:", "[link=http://x]y[/link]", "a\x1b[31mb"]
ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


WORDED_MODEL = """
from dataclasses import dataclass
from bigram_models.bigram import BigramTable

class Worded(BigramTable):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        word: str
"""


class Stream(io.TextIOWrapper):
    """A terminal, or a pipe, in some encoding."""

    def __init__(self, encoding: str = "utf-8", is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding, newline="")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        self.flush()
        written = self.buffer
        assert isinstance(written, io.BytesIO)
        return written.getvalue().decode(self.encoding)


def python(
    code: str,
    *arguments: object,
    cwd: Path | None = None,
    stdout: Any = subprocess.PIPE,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | env,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="latin-1" if "latin" in str(env) else "utf-8",
        timeout=120,
    )


def test_what_moves_a_cursor_or_hides_text_is_seen() -> None:
    assert visible("a\x1b[2Jb\x07\r\x7f\x9b1m") == r"a\x1b[2Jb\x07\r\x7f\x9b1m"
    assert visible("a\u202eb\u2066c\ufeff\u2028") == r"a\u202eb\u2066c\ufeff\u2028"
    assert visible("\udcc3") == r"\udcc3"  # a byte of a file's name
    assert visible("é中\U0001f600\tb\nc") == "é中\U0001f600\tb\nc"


def test_a_table_shows_its_cells_as_they_are() -> None:
    lines = table(["[/red]setting", "n"], [[text, 1] for text in HOSTILE]).splitlines()
    assert [line.rsplit(maxsplit=1)[0] for line in lines] == [
        "[/red]setting",
        *(text.replace("\x1b", r"\x1b") for text in HOSTILE),
    ]


def test_a_table_in_a_pipe_is_neither_cut_nor_wrapped() -> None:
    names = [f"name_{index}" for index in range(30)]
    lines = table(names, [["two words"] * 30, [""] * 30, ["中文"] * 30]).splitlines()
    assert lines[0].split() == names
    assert lines[1:] == ["  ".join(["two words"] * 30), "", "       ".join(["中文"] * 30)]


def test_a_table_on_a_terminal_breaks_between_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(is_terminal=True))
    monkeypatch.setenv("COLUMNS", "44")
    rows = [["a-name-of-23-characters", "some words and more", "1 h 05 min"], ["b", "", "3 s"]]
    lines = table(["sweep", "what it does", "left"], rows).splitlines()
    assert lines == [
        "sweep                    what it    left",
        "                         does",
        "a-name-of-23-characters  some       1 h 05",
        "                         words and  min",
        "                         more",
        "b                                   3 s",
    ]
    monkeypatch.setenv("COLUMNS", "20")
    assert table(["sweep"], [["a-name-of-23-characters"]]).endswith("a-name-of-23-characters")


@pytest.mark.parametrize("environment", ENCODINGS, ids=["ascii", "latin-1", "cp1252", "C"])
def test_rankings_are_printed_in_any_encoding(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "中.csv"
    file.write_text("opt,val_loss\n中文😀,2.0\nb,1.0\n", encoding="utf-8")
    code = "from analysis.command import main; main()"
    done = python(code, "rankings", file, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert r"\u4e2d\u6587\U0001f600" in done.stdout
    assert done.stderr.count("/ranking.") == 2  # the paths of two files
    assert (tmp_path / "state/reports/中/ranking.csv").exists()


@pytest.mark.parametrize("environment", ENCODINGS, ids=["ascii", "latin-1", "cp1252", "C"])
def test_what_a_model_wrote_is_passed_on_in_any_encoding(environment: dict[str, str]) -> None:
    code = "from analysis.text.terminal import *; set_up('x'); pass_on('\\u4e2d\\x1b[1m\\n')"
    done = python(code, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u4e2d\x1b[1m\n", "")


def test_what_others_wrote_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, expected in ((False, "a\x1b[2J\n"), (True, "a\\x1b[2J\n")):
        stream = Stream(is_terminal=is_terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        pass_on("a\x1b[2J\n")
        assert stream.text == expected


def test_errors_and_what_is_logged_are_shown_and_not_obeyed() -> None:
    code = """
import logging
from analysis.text.terminal import complain, set_up
set_up("sweeps")
logging.getLogger("x").warning("[/red] %s", "a\\x1b[2J\\u4e2d")
complain("sweeps", "b\\x1b[2J\\nwhere")
"""
    done = python(code, PYTHONIOENCODING="ascii")
    assert done.stderr == ("sweeps: [/red] a\\x1b[2J\\u4e2d\nsweeps: b\\x1b[2J\n        where\n")


def test_a_sweep_goes_on_where_nobody_reads() -> None:
    code = """
from analysis.text.terminal import try_to_say
for number in range(3):
    try_to_say("line")
"""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed, Path("/dev/full").open("w") as full:
        for nowhere in (closed, full):
            done = python(code, stdout=nowhere)
            assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_shows_its_trials_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a[").mkdir()
    (tmp_path / "a[/b].txt").write_text(write_play(characters=2_000))
    (tmp_path / "worded_model.py").write_text(WORDED_MODEL)
    arm = {"model": {"variant": "worded_model:Worded"}, "grid": {"model.word": HOSTILE}}
    sweep = {"name": "study", "corpus": "file:a[/b].txt", "arms": [arm]}
    sweep["description"] = " ".join(HOSTILE)
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    done = CliRunner().invoke(main, ["plan", "sweep.yaml", "--trials"])
    assert done.exit_code == 0, done.output
    assert "corpus  file:a[/b].txt: 2,000 characters" in done.output
    shown = [line.split()[1] for line in done.output.splitlines()[-len(HOSTILE) :]]
    assert shown == [text.replace("\x1b", r"\x1b") for text in HOSTILE]


def test_the_ranking_of_a_run_shows_its_settings_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hidden = ("train_loss", "best_val_loss", "training_seconds", "left_out", "run_ids")
    ranking = pd.DataFrame({"word": HOSTILE, "rate": 1e-5, "val_loss": [1e200, *range(5)]})
    outcome.show_ranking(ranking.assign(**dict.fromkeys(hidden, 0)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["word", "rate", "val_loss"]
    assert lines[1].split() == ["[/red]x", "1e-05", "1e+200"]
    assert lines[2].split() == ["[x](y)", "1e-05", "0.0000"]


def test_why_trials_failed_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    record = SimpleNamespace(reason="[/red]\x1b[2J", content={"name": ":smile:"}, key="k")
    outcome.show_failures([record], SimpleNamespace(where=lambda key: key))  # type: ignore
    said = capsys.readouterr().out
    assert said.startswith("failed  1 x [/red]\\x1b[2J\n        first: :smile: (k)")


def test_the_sweeps_of_a_cluster_are_shown_in_full_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress = Summary(12, 120, 0, 3, 1, 2.5, "x", "1 h 05 min")
    job = client.SweepJob(
        "a-sweep-with-a-long-name",
        "j",
        "RUNNING",
        "somebody-else",
        "c",
        "v",
        0,
        8000.0,
        "",
        progress,
    )
    cluster = SimpleNamespace(jobs=lambda: [job], with_progress=lambda job: job)
    monkeypatch.setattr(client, "Cluster", lambda address: cluster)
    done = CliRunner().invoke(main, ["status"])
    header, line = done.output.splitlines()
    assert header.split()[:3] == ["sweep", "status", "done"]
    assert line.startswith("a-sweep-with-a-long-name  RUNNING  12/120  3        1       2.5000")
    assert line.endswith("2 h 13 min")
    assert "1 h 05 min  somebody-else" in line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_live_table_shows_names_as_they_are(encoding: str) -> None:
    stream, progress = Stream(encoding, is_terminal=True), shown_progress(" ".join(HOSTILE))
    progress._console = Console(
        file=stream, force_terminal=True, color_system=None, width=120, markup=False, emoji=False,
        highlight=False, _environ={},
    )  # fmt: skip
    with progress.shown():
        progress.on_event(TrialEvent("key", "started"))
    name = " ".join(HOSTILE).replace("\x1b", r"\x1b")
    assert stream.text.count(name) >= 2  # as title and as trial


def test_progress_lines_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    progress = shown_progress(":smile:")
    progress.on_event(TrialEvent("key", "started"))
    progress.on_event(TrialEvent("key", "failed", reason="[/red]\x1b[2J\nx"))
    assert capsys.readouterr().out.endswith(" | :smile: failed: [/red]\\x1b[2J\\nx\n")


def shown_progress(name: str) -> Progress:
    training = SimpleNamespace(max_steps=10)
    names = SimpleNamespace(run_name=lambda trial: name)
    plan = SimpleNamespace(sweep=SimpleNamespace(name=name), names=names)
    trial = SimpleNamespace(training=training)
    queue = SimpleNamespace(trial=lambda key: trial, source=TrialSource())
    cost = SimpleNamespace(of=lambda key: 1.0, work_s=1.0)
    return Progress(plan, queue, cost, 1, Before(), "1 trial")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("program", "part", "arguments"),
    [
        ("analysis", "analysis.trials.loading.load_trials", ["rankings", "study"]),
        ("sweeps", "sweeps.planning.planner.make_plan", ["plan", "quickstart"]),
    ],
)
def test_ctrl_c_is_a_line_and_exit_code_130(
    program: str, part: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part, interrupted)
    module = "sweeps.cli.main" if program == "sweeps" else "analysis.command"
    main = importlib.import_module(module).main
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 130
    assert done.output.removeprefix(f"{program}: ") == "interrupted\n"
