"""The log of a trial: what its code says is in it, in its own and in no other."""

# ruff: noqa: T201 (as a trial's code may)
from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.worker.trial_log import MAX_BYTES, Capture, TrialLog, log_of


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """Of the root logger, which `Capture` sets."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def log(tmp_path: Path) -> TrialLog:
    return TrialLog(log_of(tmp_path / "trial"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log_of(tmp_path / "trial")


def test_what_is_printed_and_logged_is_in_it_and_where_it_was_before(
    log: TrialLog, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = Capture()
    print("before")
    with capture.into([log]):
        print("printed")
        print("complained", file=sys.stderr)
        logging.getLogger("my.model").info("logged %d", 1)
        logging.getLogger("my.model").debug("too much")
    print("after")
    logging.getLogger("my.model").info("later")
    text = path.read_text()
    assert text.startswith("printed\ncomplained\n")
    assert "INFO my.model: logged 1\n" in text
    for absent in ("before", "after", "too much", "later"):
        assert absent not in text
    said = capsys.readouterr()
    assert said.out == "before\nprinted\nafter\n"
    assert "complained" in said.err
    assert "logged 1" in said.err


def test_it_leaves_the_process_as_it_was(log: TrialLog) -> None:
    capture = Capture()
    before = (sys.stdout, sys.stderr, [*logging.getLogger().handlers])
    with pytest.raises(ZeroDivisionError), capture.into([log]):
        _ = 1 / 0
    assert (sys.stdout, sys.stderr, [*logging.getLogger().handlers]) == before


def test_a_stream_that_is_kept_writes_to_the_trial_under_way(tmp_path: Path) -> None:
    """A module is imported once, and an actor has many trials."""
    capture = Capture()
    with capture.into([TrialLog(tmp_path / "0.txt")]):
        kept = sys.stdout
        kept.write("trial 0\n")
    kept.write("idle\n")
    with capture.into([TrialLog(tmp_path / "1.txt")]):
        kept.write("trial 1\n")
        assert kept.encoding  # whatever else a stream has
    texts = [(tmp_path / f"{number}.txt").read_text() for number in range(2)]
    assert texts == ["trial 0\n", "trial 1\n"]


def test_it_goes_on_in_a_line_of_its_own_with_the_time(log: TrialLog, path: Path) -> None:
    log.write("half a line")
    log.mark("taken up")
    log.close()
    TrialLog(path).mark("again")
    first, second, third = path.read_text().splitlines()
    assert first == "half a line"
    assert second.endswith(" taken up")
    assert third.endswith(" again")
    assert second[:4].isdigit()
    assert second[10] == "T"


def test_it_stays_small_says_so_once_and_still_tells_the_end(log: TrialLog, path: Path) -> None:
    for _ in range(40):
        log.write("ü" * 50_000 + "\n")
    log.mark("failed: " + "x" * 100_000)
    size = path.stat().st_size
    assert size < MAX_BYTES + 30_000
    text = path.read_text()
    assert text.count("this log is full") == 1
    assert f"the output of process {os.getpid()} on {platform.node()} alone" in text
    assert text.rstrip().endswith("xxx")
    assert "failed: xxx" in text
    again = TrialLog(path)
    for _ in range(3):
        again.write("more" * 1000)
    again.close()
    assert path.stat().st_size < size + 300


@pytest.mark.parametrize("place", ["/dev/full", "in the way/log.txt"])
def test_one_that_cannot_be_written_is_given_up_and_stops_nothing(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in the way").write_text("")
    log = TrialLog(tmp_path / place)
    with Capture().into([log]):
        for _ in range(3):
            print("well")
            log.mark("taken up")
    (warning,) = caplog.messages
    assert f"{tmp_path / place} cannot be written: " in warning


TRIALS = """
import os, sys, warnings
from pathlib import Path
from trainables.worker.trial_log import Capture, TrialLog, forget_warnings

capture = Capture()
for path in sys.argv[1:]:
    forget_warnings()
    with capture.into([TrialLog(Path(path))]):
        for _ in range(3):
            warnings.warn("this is slow")
        print("last words")
        if path == sys.argv[-1]:
            os._exit(1)
"""


def test_each_trial_of_a_process_has_its_warnings_and_the_last_its_last_words(
    tmp_path: Path,
) -> None:
    """Python shows a warning once a process; pytest shows none."""
    paths = [tmp_path / f"{number}.txt" for number in range(2)]
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", TRIALS, *paths], cwd=root, check=False)
    assert done.returncode == 1
    for path in paths:
        text = path.read_text()
        assert text.count("UserWarning: this is slow") == 1
        assert text.endswith("last words\n")
