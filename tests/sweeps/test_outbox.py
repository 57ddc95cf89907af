"""The outbox keeps what happened, whatever becomes of the process or the file."""

from __future__ import annotations

import math
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.records.events import SEED_FAILED_TEXT, EndCause, TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.outbox_file import VERSION
from sweeps.records.outbox_reader import read_trials
from sweeps.records.records import TrialRecord
from trainables.errors import UserError

ROOT = Path(__file__).parents[2]
A, B, C = {"name": "a"}, {"name": "b"}, {"name": "c"}
WAITING = TrialRecord(
    key="a",
    content=A,
    role="trial",
    status="WAITING",
    reason="",
    failures=0,
    hardware="",
    step=0,
    restarts=0,
    recomputed=0,
    started_ms=None,
    latest_ms=0,
    run_id=None,
    revision=1,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study" / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    """Of three trials that wait."""
    with closing(Outbox(path, "study")) as outbox:
        outbox.describe({"description": "letters"}, {"a": A, "b": B, "c": C})
        yield outbox


def evaluation(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "val_loss": 4 - step / 8, **more}


def event(key: str, kind: Any, time_ms: int = 1_000, **more: Any) -> TrialEvent:
    return TrialEvent(key, kind, time_ms=time_ms, **more)


def progressed(key: str, *steps: int, time_ms: int = 1_000, **more: Any) -> TrialEvent:
    """Progress to the last of these steps, with an evaluation at each."""
    evaluations = [evaluation(step) for step in steps]
    settings = {"step": steps[-1], "hardware": "cpu"} | more
    return event(key, "progressed", time_ms, evaluations=evaluations, **settings)


def record_of(outbox: Outbox, key: str = "a") -> TrialRecord:
    record = outbox.trial(key)
    assert record is not None
    return record


def send(outbox: Outbox, *keys: str) -> None:
    """Send these trials as the delivery does."""
    for key in keys:
        steps = [each["step"] for _, each in outbox.evaluations(key, unsent=True)]
        outbox.sent(record_of(outbox, key), f"run of {key}", steps)


def steps(outbox: Outbox, key: str = "a", unsent: bool = False) -> list[int]:
    return [each["step"] for _, each in outbox.evaluations(key, unsent)]


# What the sweep is to be.


def test_a_new_sweep_waits_and_has_nothing_to_send_but_itself(outbox: Outbox) -> None:
    assert record_of(outbox) == WAITING
    assert {record.key: record.content for record in outbox.trials()} == {"a": A, "b": B, "c": C}
    assert outbox.unsent() == []
    assert outbox.lost == ""
    sweep = outbox.sweep
    assert (sweep.name, sweep.content, sweep.status) == (
        "study",
        {"description": "letters"},
        "RUNNING",
    )
    assert not sweep.is_sent


def test_an_outbox_does_not_know_other_trials(outbox: Outbox) -> None:
    assert outbox.trial("x") is None
    assert outbox.evaluations("x") == []


def test_trials_that_are_described_again_stay_as_they_are(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    outbox.record(event("a", "finished"))
    send(outbox, "a")
    before = outbox.trials()
    assert outbox.describe({"description": "letters"}, {"a": A, "b": B, "c": C}) == 0
    assert outbox.trials() == before
    assert outbox.unsent() == []


def test_what_is_described_in_another_way_is_sent_again(outbox: Outbox) -> None:
    outbox.record(event("a", "finished"))
    outbox.record(event("b", "finished"))
    send(outbox, "a", "b")
    outbox.sweep_sent(outbox.sweep.revision)
    renamed = {"name": "A"}
    outbox.describe({"description": "capitals"}, {"a": renamed, "b": B, "c": {"name": "C"}})
    assert record_of(outbox).content == renamed
    assert (record_of(outbox).status, record_of(outbox).run_id) == ("FINISHED", "run of a")
    assert record_of(outbox, "c").content == {"name": "C"}
    assert outbox.unsent() == ["a"]  # c has no run yet
    assert outbox.sweep.content == {"description": "capitals"}
    assert not outbox.sweep.is_sent


def test_trials_that_are_not_described_any_more_are_removed(outbox: Outbox) -> None:
    outbox.record(event("b", "finished"))
    send(outbox, "b")
    assert outbox.describe({}, {"a": A}) == 1  # of b and c, the one that has a run
    assert [record.key for record in outbox.trials()] == ["a"]
    assert (record_of(outbox, "b").role, record_of(outbox, "b").status) == ("removed", "FINISHED")
    assert outbox.unsent() == ["b"]
    assert outbox.describe({}, {"a": A}) == 0  # it was removed before


def test_a_trial_that_returns_has_what_it_had(outbox: Outbox) -> None:
    outbox.record(progressed("b", 2))
    outbox.record(event("b", "finished"))
    outbox.describe({}, {"a": A})
    send(outbox, "b")
    outbox.describe({}, {"a": A, "b": B})
    returned = record_of(outbox, "b")
    assert (returned.role, returned.status, returned.run_id) == ("trial", "FINISHED", "run of b")
    assert steps(outbox, "b") == [2]
    assert outbox.unsent() == ["b"]
    assert {record.key for record in outbox.trials()} == {"a", "b"}


@pytest.mark.parametrize(
    "stop", [Outbox.kill_running, lambda outbox: outbox.describe({}, {"a": A})]
)
@pytest.mark.parametrize(
    ("kind", "status"), [("started", "KILLED"), ("finished", "FINISHED"), ("failed", "FAILED")]
)
def test_what_ran_when_a_driver_stopped_or_died_does_not_run(
    stop: Callable[[Outbox], None], kind: str, status: str, outbox: Outbox
) -> None:
    outbox.record(event("a", kind))
    send(outbox, "a")
    stop(outbox)
    assert record_of(outbox).status == status
    assert outbox.unsent() == (["a"] if status == "KILLED" else [])
    assert record_of(outbox, "b").status == "WAITING"


# What happens.


def test_a_trial_runs_from_its_start_to_its_end(outbox: Outbox) -> None:
    outbox.record(event("a", "started", 5))
    assert (record_of(outbox).status, record_of(outbox).started_ms) == ("RUNNING", 5)
    outbox.record(progressed("a", 0, 2, time_ms=6, hardware="abacus"))
    assert outbox.evaluations("a") == [(6, evaluation(0)), (6, evaluation(2))]
    assert (record_of(outbox).step, record_of(outbox).hardware) == (2, "abacus")
    outbox.record(progressed("a", 4, time_ms=7))
    outbox.record(event("a", "finished", 8))
    ended = record_of(outbox)
    assert (ended.status, ended.step, ended.started_ms, ended.latest_ms) == ("FINISHED", 4, 5, 8)
    assert outbox.evaluations("a")[-1] == (7, evaluation(4))
    assert outbox.trial("b") == replace(WAITING, key="b", content=B)


def test_a_trial_that_fails_says_why_and_how_often(outbox: Outbox) -> None:
    for reason in ("no luck", "no memory"):
        outbox.record(event("a", "started"))
        assert record_of(outbox).reason == ""
        outbox.record(event("a", "failed", reason=reason))
    assert (record_of(outbox).status, record_of(outbox).reason) == ("FAILED", "no memory")
    assert record_of(outbox).failures == 2
    outbox.reset_failures()
    assert (record_of(outbox).status, record_of(outbox).failures) == ("FAILED", 0)


def test_a_trial_that_failed_and_then_finished_has_no_reason(outbox: Outbox) -> None:
    outbox.record(event("a", "failed", reason="no luck"))
    outbox.record(event("a", "finished"))
    assert (record_of(outbox).status, record_of(outbox).reason) == ("FINISHED", "")
    assert record_of(outbox).failures == 1


def test_a_trial_that_was_stopped_early_says_why_and_did_not_fail(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    outbox.record(event("a", "stopped", reason="hopeless"))
    record = record_of(outbox)
    assert (record.status, record.reason, record.failures) == ("STOPPED", "hopeless", 0)
    outbox.kill_running()
    assert record_of(outbox).status == "STOPPED"


def test_a_trial_that_is_paused_still_runs(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    before = record_of(outbox)
    outbox.record(event("a", "paused"))
    assert record_of(outbox) == before


def test_trials_are_added_while_others_run(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    outbox.add({"d": {"name": "d"}, "a": A})
    assert [record.key for record in outbox.trials()] == ["a", "b", "c", "d"]
    assert record_of(outbox).status == "RUNNING"
    revision = record_of(outbox).revision
    outbox.add({"a": {"name": "other"}})
    assert record_of(outbox).revision == revision + 1
    assert record_of(outbox).status == "RUNNING"


def test_a_worker_that_died_changes_nothing(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    before = record_of(outbox)
    outbox.record(event("a", "restarted", 2_000))
    assert record_of(outbox) == replace(before, latest_ms=2_000)


@pytest.mark.parametrize(
    "again",
    [progressed("a", 0, 2, time_ms=9_000), progressed("a", 2, 4, time_ms=9_000, resumed=True)],
    ids=["the same event", "the past of a trial that is taken up"],
)
def test_an_evaluation_is_taken_once(again: TrialEvent, outbox: Outbox) -> None:
    outbox.record(progressed("a", 0, 2, 4, time_ms=5))
    before = outbox.evaluations("a")
    send(outbox, "a")
    outbox.record(again)
    assert outbox.evaluations("a") == before
    assert steps(outbox, unsent=True) == []
    assert steps(outbox, "b") == []


def test_evaluations_come_by_step_and_each_trial_has_its_own(outbox: Outbox) -> None:
    for key, step in [("a", 4), ("b", 4), ("a", 10), ("a", 2), ("b", 9)]:
        outbox.record(progressed(key, step))
    assert (steps(outbox, "a"), steps(outbox, "b")) == ([2, 4, 10], [4, 9])


def test_times_of_a_trial_never_go_back(outbox: Outbox) -> None:
    outbox.record(event("a", "started", 100))
    for step, time_ms in [(1, 200), (2, 50), (3, 150), (4, 300)]:  # the clock was set back
        outbox.record(progressed("a", step, time_ms=time_ms))
    outbox.record(event("a", "finished", 10))
    assert [time_ms for time_ms, _ in outbox.evaluations("a")] == [200, 200, 200, 300]
    assert (record_of(outbox).started_ms, record_of(outbox).latest_ms) == (100, 300)
    outbox.record(event("b", "started", 10))
    assert record_of(outbox, "b").started_ms == 10  # its own time


def test_a_trial_that_is_started_again_has_its_first_start(outbox: Outbox) -> None:
    for time_ms in (100, 200, 20):
        outbox.record(event("a", "started", time_ms))
    assert (record_of(outbox).started_ms, record_of(outbox).latest_ms) == (100, 200)


@pytest.mark.parametrize(
    ("lives", "restarts", "recomputed"),
    [
        ([[0]], 0, 0),
        ([[0], [0, 4]], 0, 0),  # it had not come anywhere
        ([[0, 4], [4]], 1, 0),  # it was saved
        ([[0, 4], [2]], 1, 2),
        ([[0, 4, 8], [0, 4], [2, 8], [7]], 3, 8 + 2 + 1),
        ([[0, 4], [6]], 1, 0),  # it was saved further than it was told
    ],
    ids=str,
)
def test_what_was_done_again_is_counted(
    lives: Sequence[Sequence[int]], restarts: int, recomputed: int, outbox: Outbox
) -> None:
    for life in lives:
        for step in life:
            resumed = step == life[0]
            outbox.record(event("a", "progressed", step=step, resumed=resumed))
    record = record_of(outbox)
    assert (record.restarts, record.recomputed) == (restarts, recomputed)
    assert record.step == lives[-1][-1]


def test_an_event_is_taken_as_a_whole_or_not_at_all(outbox: Outbox) -> None:
    outbox.record(progressed("a", 2))
    before = record_of(outbox)
    broken = [evaluation(4), {"step": 5, "val_loss": {1, 2}}]  # a set is no JSON
    with pytest.raises(TypeError):
        outbox.record(event("a", "progressed", 2_000, step=4, evaluations=broken))
    assert record_of(outbox) == before
    assert steps(outbox) == [2]
    outbox.record(progressed("a", 4))
    assert steps(outbox) == [2, 4]


# What the tracking store has.


def test_what_happened_is_to_be_sent_until_it_was(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    outbox.record(progressed("b", 2))
    outbox.record(event("b", "started"))
    assert sorted(outbox.unsent()) == ["a", "b"]
    send(outbox, "a")
    assert record_of(outbox).run_id == "run of a"
    assert outbox.unsent() == ["b"]
    send(outbox, "b")
    assert outbox.unsent() == []
    assert (steps(outbox, "b"), steps(outbox, "b", unsent=True)) == ([2], [])


@pytest.mark.parametrize(
    ("change", "is_news"),
    [
        (progressed("a", 4), True),
        (event("a", "progressed", step=3, hardware="cpu"), False),  # the store has no steps
        (event("a", "progressed", step=2, hardware="gpu"), True),
        (event("a", "restarted"), False),
        (event("a", "finished"), True),
        (event("a", "failed", reason="no luck"), True),
        (event("a", "started"), True),
    ],
    ids=lambda value: str(getattr(value, "kind", value)),
)
def test_what_the_store_shows_is_sent_again_when_it_changes(
    change: TrialEvent, is_news: bool, outbox: Outbox
) -> None:
    outbox.record(event("a", "started"))
    outbox.record(progressed("a", 2))
    send(outbox, "a")
    outbox.record(change)
    assert outbox.unsent() == (["a"] if is_news else [])


def test_what_happens_while_a_trial_is_sent_is_sent_next(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    outbox.record(progressed("a", 2))
    read = record_of(outbox)
    outbox.record(event("a", "finished"))
    outbox.sent(read, "run", [2])
    assert outbox.unsent() == ["a"]
    outbox.sent(record_of(outbox), "run")
    assert outbox.unsent() == []


def test_an_evaluation_that_comes_while_a_trial_is_sent_is_sent_next(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    outbox.record(progressed("a", 2))
    read = record_of(outbox)
    outbox.record(progressed("a", 4))
    outbox.sent(read, "run", [2])
    assert outbox.unsent() == ["a"]
    assert outbox.evaluations("a", unsent=True) == [(1_000, evaluation(4))]


def test_an_answer_that_comes_late_takes_nothing_back(outbox: Outbox) -> None:
    outbox.record(event("a", "started"))
    early = record_of(outbox)
    outbox.record(event("a", "finished"))
    send(outbox, "a")
    outbox.sent(early, "run of a")
    assert outbox.unsent() == []


def test_the_sweep_itself_is_sent_again_when_it_changes(outbox: Outbox) -> None:
    read = outbox.sweep
    outbox.end("FAILED")
    outbox.sweep_sent(read.revision)
    assert (outbox.sweep.status, outbox.sweep.is_sent) == ("FAILED", False)
    outbox.sweep_sent(outbox.sweep.revision)
    outbox.sweep_sent(read.revision)
    assert outbox.sweep.is_sent
    outbox.describe({}, {})
    assert (outbox.sweep.status, outbox.sweep.is_sent) == ("RUNNING", False)


@pytest.mark.parametrize(
    ("kinds", "run", "status", "failures", "is_news"),
    [
        ([], "FINISHED", "FINISHED", 0, False),
        ([], "FAILED", "FAILED", 1, False),
        ([], "KILLED", "KILLED", 0, True),
        ([], "RUNNING", "KILLED", 0, True),  # the driver that wrote this is dead
        (["started"], "FINISHED", "RUNNING", 0, True),
        (["started"], "RUNNING", "RUNNING", 0, True),
        (["finished"], "FINISHED", "FINISHED", 0, False),
        (["finished"], "RUNNING", "FINISHED", 0, True),
        (["finished"], "FAILED", "FINISHED", 0, True),
        (["failed"], "FAILED", "FAILED", 1, False),
        (["failed"], "FINISHED", "FAILED", 1, True),
        (["failed", "failed"], "KILLED", "FAILED", 2, True),
    ],
    ids=str,
)
def test_a_run_of_the_store_is_taken_over(
    kinds: Sequence[str], run: str, status: str, failures: int, is_news: bool, outbox: Outbox
) -> None:
    for kind in kinds:
        outbox.record(event("a", kind, reason="ours"))
    outbox.adopt("a", "found", run, "theirs" if run == "FAILED" else "", [(7, evaluation(2))])
    record = record_of(outbox)
    assert (record.run_id, record.status, record.failures) == ("found", status, failures)
    if status == "FAILED":
        assert record.reason == ("ours" if kinds else "theirs")
    assert outbox.unsent() == (["a"] if is_news else [])
    assert outbox.evaluations("a") == [(7, evaluation(2))]
    assert record_of(outbox, "b").run_id is None


def test_a_run_that_shows_something_else_is_sent_what_it_should_show(outbox: Outbox) -> None:
    outbox.adopt("a", "found", "FINISHED", "", [], is_current=False)
    assert outbox.unsent() == ["a"]
    assert record_of(outbox).status == "FINISHED"


def test_a_good_file_is_not_set_aside_because_the_disk_is_full(
    path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    outbox.close()
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.records.outbox_file._check", fail)
        with pytest.raises(sqlite3.OperationalError):
            Outbox(path, "study")
    assert [each.name for each in path.parent.iterdir()] == ["outbox.db"]
    with closing(Outbox(path, "study")) as again:
        assert again.lost == ""
        assert len(again.trials()) == 3


def test_a_process_that_is_killed_while_it_makes_the_file_leaves_none(path: Path) -> None:
    code = (
        "import os, pathlib, sweeps.records.outbox as o\n"
        "o.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        f"o.Outbox(pathlib.Path({str(path)!r}), 'study')\n"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert died.returncode == -9
    assert not path.exists()
    with closing(Outbox(path, "study")) as outbox:
        assert outbox.lost == ""


def test_of_a_run_that_is_taken_over_only_what_it_lacks_is_sent(outbox: Outbox) -> None:
    outbox.record(progressed("a", 2, 4, time_ms=5))
    outbox.record(event("a", "finished"))
    theirs = [(1, evaluation(0, of="the store")), (2, evaluation(2, of="the store"))]
    outbox.adopt("a", "found", "FINISHED", "", theirs)
    assert steps(outbox) == [0, 2, 4]
    assert outbox.evaluations("a")[1] == (5, evaluation(2))  # ours stays
    assert steps(outbox, unsent=True) == [4]
    assert outbox.unsent() == ["a"]


def test_times_do_not_go_back_behind_those_of_a_run_that_is_taken_over(outbox: Outbox) -> None:
    outbox.adopt("a", "found", "KILLED", "", [(900, evaluation(4)), (700, evaluation(2))])
    outbox.record(progressed("a", 6, time_ms=500))
    assert record_of(outbox).latest_ms == 900
    assert outbox.evaluations("a")[-1] == (900, evaluation(6))
    outbox.record(event("b", "finished", 800))
    outbox.adopt("b", "found", "FINISHED", "", [(600, evaluation(2))])
    assert record_of(outbox, "b").latest_ms == 800


def test_a_run_that_the_store_lost_is_sent_again_as_a_whole(outbox: Outbox) -> None:
    for key in ("a", "b"):
        outbox.record(progressed(key, 2, 4))
        outbox.record(event(key, "finished"))
    send(outbox, "a", "b")
    before = record_of(outbox)
    outbox.resend("a")
    assert outbox.unsent() == ["a"]
    assert record_of(outbox) == replace(before, run_id=None)
    assert steps(outbox, unsent=True) == [2, 4]
    assert record_of(outbox, "b").run_id == "run of b"


def test_a_run_without_evaluations_is_sent_again_once_it_started(outbox: Outbox) -> None:
    outbox.record(event("a", "failed"))
    send(outbox, "a")
    for key in ("a", "b"):
        outbox.resend(key)
    assert outbox.unsent() == ["a"]


# The process and the file.

LIFE = """
import os, signal, sys
from pathlib import Path
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Deadly:
    def __iter__(self):
        yield {"step": 4, "val_loss": 3.5}
        die()

outbox = Outbox(Path(sys.argv[1]), "study")
outbox.describe({"description": "letters"}, {"a": {"name": "a"}, "b": {"name": "b"}})
outbox.record(TrialEvent("a", "started", time_ms=5))
first = [{"step": 2, "val_loss": 3.75}]
outbox.record(TrialEvent("a", "progressed", 2, first, hardware="cpu", time_ms=6))
outbox.sent(outbox.trial("a"), "run", [2])
outbox.record(TrialEvent("b", "failed", reason="no luck", time_ms=7))
"""


def live(path: Path, code: str) -> None:
    """Let a process write an outbox, and die."""
    command = [sys.executable, "-c", LIFE + code, str(path)]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert died.returncode == -9, died.stderr


@pytest.mark.parametrize(
    "death",
    ["die()", "outbox.record(TrialEvent('a', 'progressed', 4, Deadly(), time_ms=8))"],
    ids=["between events", "in the middle of one"],
)
def test_a_process_that_is_killed_loses_nothing(death: str, path: Path) -> None:
    live(path, death)
    with closing(Outbox(path, "study")) as outbox:
        assert outbox.lost == ""
        assert outbox.sweep.content == {"description": "letters"}
        a, b = outbox.trials()
        assert (a.status, a.step, a.run_id, a.hardware, a.latest_ms) == (
            "RUNNING", 2, "run", "cpu", 6
        )  # fmt: skip
        assert outbox.evaluations("a") == [(6, {"step": 2, "val_loss": 3.75})]
        assert (b.status, b.reason, b.failures) == ("FAILED", "no luck", 1)
        assert outbox.unsent() == ["b"]


def test_an_outbox_that_is_opened_again_is_as_it_was(path: Path, outbox: Outbox) -> None:
    outbox.record(progressed("a", 2))
    before = (outbox.sweep, outbox.trials(), outbox.evaluations("a"), outbox.unsent())
    outbox.close()
    for _ in range(2):
        with closing(Outbox(path, "study")) as again:
            assert again.lost == ""
            after = (again.sweep, again.trials(), again.evaluations("a"), again.unsent())
            assert after == before


def fill(path: Path, sweep: str = "study") -> None:
    """An outbox of several pages."""
    with closing(Outbox(path, sweep)) as outbox:
        outbox.describe({}, {str(number): {"name": "x" * 100} for number in range(300)})


def other_database(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")


def other_sweeps(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE sweep (name); INSERT INTO sweep VALUES ('study')")


def damaged(damage: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        fill(path)
        path.write_bytes(damage(path.read_bytes()))

    return make


def without_its_sweep(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DELETE FROM sweep")


unusable = pytest.mark.parametrize(
    "make",
    [
        damaged(lambda content: content[: len(content) // 2]),
        damaged(lambda content: b""),
        damaged(lambda content: random.Random(0).randbytes(len(content))),
        damaged(lambda content: content[:-8_000] + random.Random(0).randbytes(8_000)),
        damaged(lambda content: b"name: study\n"),
        other_database,
        other_sweeps,
        lambda path: fill(path, "another study"),
        without_its_sweep,
    ],
    ids=[
        "half",
        "empty",
        "random bytes",
        "random bytes at its end",
        "text",
        "a database of something else",
        "a database of other sweeps",
        "the outbox of another sweep",
        "an outbox of no sweep",
    ],
)


@unusable
def test_a_file_that_cannot_be_used_is_set_aside(make: Callable[[Path], None], path: Path) -> None:
    make(path)
    content = path.read_bytes()
    with closing(Outbox(path, "study")) as outbox:
        assert outbox.lost.startswith(f"{path} cannot be used (")
        assert outbox.lost.endswith("); kept as outbox.db.unusable-1")
        assert (outbox.sweep.name, outbox.trials(), outbox.unsent()) == ("study", [], [])
        outbox.describe({}, {"a": A})
        outbox.record(progressed("a", 2))
    assert path.with_name("outbox.db.unusable-1").read_bytes() == content
    with closing(Outbox(path, "study")) as again:
        assert again.lost == ""
        assert steps(again) == [2]


def test_a_second_file_that_cannot_be_used_has_the_next_number(path: Path) -> None:
    for number in (1, 2):
        damaged(lambda content: content[:5_000])(path)
        with closing(Outbox(path, "study")) as outbox:
            assert outbox.lost.endswith(f"kept as outbox.db.unusable-{number}")
    assert {file.name for file in path.parent.iterdir()} == {
        "outbox.db",
        "outbox.db.unusable-1",
        "outbox.db.unusable-2",
    }


def test_the_journal_is_set_aside_with_its_file(path: Path) -> None:
    """What was written last is in the journal, and stays there while somebody looks at the file."""
    live(path, "die()")
    with closing(sqlite3.connect(path)) as onlooker:
        assert onlooker.execute("SELECT count(*) FROM trials").fetchone() == (2,)
        with closing(Outbox(path, "another study")) as outbox:
            assert "of another sweep" in outbox.lost
            assert outbox.trials() == []
    kept = path.with_name("outbox.db.unusable-1")
    assert kept.with_name("outbox.db.unusable-1-wal").stat().st_size > 0
    with closing(Outbox(kept, "study")) as outbox:
        assert [record.status for record in outbox.trials()] == ["RUNNING", "FAILED"]


def test_the_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"outbox\.db was made by a newer version; update"):
        Outbox(path, "study")
    assert [file.name for file in path.parent.iterdir()] == ["outbox.db"]
    assert path.read_bytes() == before


def test_a_file_of_version_1_goes_on_with_the_losses_under_their_new_names(path: Path) -> None:
    """Evaluations of version 1 have ``val_nats``; one that is not finite is no JSON."""
    old = [
        {
            "step": 2,
            "train_nats": 2.25,
            "val_nats": 2.5,
            "best_val_nats": 2.5,
            "host": '"val_nats":',
        },
        {"step": 4, "train_nats": 2.0, "val_nats": math.inf, "best_val_nats": 2.5},
    ]
    with closing(Outbox(path, "study")) as outbox:
        outbox.describe({}, {"a": A, "b": B})
        outbox.record(event("a", "progressed", step=4, evaluations=old))
        outbox.record(event("a", "finished"))
        send(outbox, "a")
        outbox.record(progressed("a", 6))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 1")
    for _ in range(2):  # the second time nothing is left to convert
        with closing(Outbox(path, "study")) as outbox:
            assert outbox.lost == ""
            assert [each for _, each in outbox.evaluations("a")] == [
                {"step": 2, "train_loss": 2.25, "val_loss": 2.5, "best_val_loss": 2.5,
                 "host": '"val_nats":'},
                {"step": 4, "train_loss": 2.0, "val_loss": math.inf, "best_val_loss": 2.5},
                evaluation(6),
            ]  # fmt: skip
            assert steps(outbox, unsent=True) == [6]
            assert outbox.best() == (2.5, A["name"])
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)


CAUSES = {
    "TrainingDivergedError: the loss is nan at step 3": EndCause.DIVERGED,
    "OutOfMemoryError: CUDA out of memory": EndCause.OUT_OF_MEMORY,
    "RuntimeError: no luck": EndCause.ERROR,
    "asha: not among the best 1/3 at step 500": EndCause.PRUNED,
    "median: worse than the median at step 500": EndCause.PRUNED,
    f"{SEED_FAILED_TEXT}: RuntimeError: no luck": EndCause.SEED_FAILED,
}


def test_why_a_trial_ended_is_kept_and_forgotten_when_it_starts_again(path: Path) -> None:
    with closing(Outbox(path, "study")) as outbox:
        outbox.describe({}, {"a": A, "b": B})
        outbox.record(event("a", "failed", reason="asha: a name", cause=EndCause.DIVERGED))
        outbox.record(event("b", "stopped", reason="hopeless", cause=EndCause.PRUNED))
    with closing(Outbox(path, "study")) as again:
        assert record_of(again).cause is EndCause.DIVERGED
        assert record_of(again, "b").cause is EndCause.PRUNED
        again.record(event("a", "started"))
        assert record_of(again).cause is None


@pytest.mark.parametrize("reason", CAUSES)
def test_a_file_that_has_no_causes_gets_them_from_its_reasons(reason: str, path: Path) -> None:
    with closing(Outbox(path, "study")) as outbox:
        outbox.describe({}, {"a": A, "b": B})
        outbox.record(event("a", "failed", reason=reason))
        outbox.record(event("b", "finished"))
        send(outbox, "a", "b")
        trials = outbox.trials()
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE trials DROP COLUMN cause")  # as an earlier version made it
    expected = [replace(trials[0], cause=CAUSES[reason]), trials[1]]
    assert read_trials(path) == expected, "reading changes nothing"
    for _ in range(2):
        with closing(Outbox(path, "study")) as outbox:
            assert outbox.lost == ""
            assert outbox.trials() == expected
            assert outbox.unsent() == []


def test_two_processes_may_bring_an_old_file_up_to_date_at_once(path: Path) -> None:
    with closing(Outbox(path, "study")) as outbox:
        outbox.describe({}, {"a": A})
        outbox.record(event("a", "failed", reason="TrainingDivergedError: nan"))
    for _ in range(3):
        with closing(sqlite3.connect(path)) as database:
            database.execute("ALTER TABLE trials DROP COLUMN cause")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # until both have seen that there are no causes
            with ThreadPoolExecutor(2) as pool:
                opened = [pool.submit(Outbox, path, "study") for _ in range(2)]
                time.sleep(0.3)
                other.execute("ROLLBACK")
        for each in opened:
            with closing(each.result()) as outbox:
                assert record_of(outbox).cause is EndCause.DIVERGED


@pytest.mark.parametrize("reason", CAUSES)
def test_a_run_that_is_taken_over_has_the_cause_that_its_reason_tells(
    reason: str, outbox: Outbox
) -> None:
    outbox.adopt("a", "found", "STOPPED", reason, [])
    assert record_of(outbox).cause is CAUSES[reason]


def test_two_threads_may_use_it_at_once(outbox: Outbox) -> None:
    count = 300

    def record() -> None:
        for key in ("a", "b"):
            outbox.record(event(key, "started"))
        for step in range(count):
            for key in ("a", "b"):
                outbox.record(progressed(key, step))

    with ThreadPoolExecutor(1) as pool:
        recording = pool.submit(record)
        while not recording.done():
            send(outbox, *outbox.unsent())
        recording.result()
    send(outbox, *outbox.unsent())
    assert outbox.unsent() == []
    for key in ("a", "b"):
        assert steps(outbox, key) == list(range(count))
        assert steps(outbox, key, unsent=True) == []


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("outbox.db*")}


def test_nobody_else_may_read_an_outbox_nor_its_journals(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "outbox.db", "study")) as outbox:
        outbox.end("FINISHED")
        private = dict.fromkeys(("outbox.db", "outbox.db-wal", "outbox.db-shm"), 0o600)
        assert modes(tmp_path) == private
    (tmp_path / "outbox.db").chmod(0o644)  # as an earlier version left it
    with closing(Outbox(tmp_path / "outbox.db", "study")) as outbox:
        outbox.end("KILLED")
        assert modes(tmp_path) == private


def test_the_best_so_far_is_of_trials_that_are_part_of_the_sweep(outbox: Outbox) -> None:
    assert outbox.best() is None
    for key, losses in {"a": [2.5, 2.4], "b": [math.nan, math.inf, 2.6], "c": [1.0]}.items():
        evaluations = [
            {"step": step, "val_loss": loss, "train_loss": loss} for step, loss in enumerate(losses)
        ]
        outbox.record(event(key, "progressed", step=3, evaluations=evaluations))
    assert outbox.best() == (1.0, C["name"])
    outbox.describe({}, {"a": A, "b": B})
    assert outbox.best() == (2.4, A["name"])
