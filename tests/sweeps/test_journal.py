"""The file of the studies, damaged in every way: nothing that the outbox knows is lost with it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from sweeps.cli.main import main
from sweeps.planning.plan import Plan
from sweeps.records.outbox import Outbox
from sweeps.search.study_storage import JOURNAL, open_study_storage
from tests.sweeps.searches import SWEEP, plan, resumed, simulate, valley
from tests.sweeps.simulation import DriverDiedError, Simulation
from trainables.config import TrialConfig
from trainables.errors import UserError

BUDGET = 10
OVERRIDES = (
    f"search.trials={BUDGET}",
    "replicates=2",
    "search.stopping={rule: asha, first_step: 10, reduction: 2}",
    "search.confirm={top: 1, replicates: 2}",
)
SMALL_SPACE = """
name: made-up
corpus: file:play.txt
training: {max_steps: 100, eval_every: 10, block_size: 4}
arms: [{model: {variant: factorized}, search: {model.n_embd: [8, 16]}}]
search: {stopping: none, confirm: {top: 1, replicates: 5}}
"""
Damage = Callable[[bytes], bytes]


def curve(trial: TrialConfig) -> dict[int, float]:
    if trial.flat["learning_rate"] > 0.2:
        raise ArithmeticError("the loss is nan at step 3")
    if trial.flat["n_embd"] % 5 == 0 and trial.seed == 1338:
        raise MemoryError("no")
    return valley(trial)


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(SWEEP, *OVERRIDES)


@pytest.fixture(scope="module")
def states(made: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of a search that has ended, and one whose driver died in the middle."""
    folders = {}
    for name, dies_after in (("ended", None), ("died", 110)):
        folder = folders[name] = tmp_path_factory.mktemp(name)
        outbox = Outbox(folder / "outbox.db", "made-up")
        _, queue, *_ = resumed(made, folder, outbox)
        simulation = Simulation(queue, curve, workers=3, dies_after=dies_after)
        try:
            simulation.run()
        except DriverDiedError:
            assert dies_after
        statuses = Counter(record.status for record in outbox.trials())
        assert {"FINISHED", "STOPPED"} < statuses.keys()
        assert ("RUNNING" in statuses) == (name == "died")
        outbox.close()
    return folders


@pytest.fixture(params=["ended", "died"])
def folder(states: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(states[request.param], tmp_path / "sweep"))


@pytest.fixture
def outbox(folder: Path) -> Iterator[Outbox]:
    opened = Outbox(folder / "outbox.db", "made-up")
    yield opened
    opened.close()


def suggested(outbox: Outbox) -> set[str]:
    return {record.key for record in outbox.trials() if record.is_suggested}


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def altered(content: bytes, old: bytes, new: bytes) -> bytes:
    """The first such word in the second half becomes another."""
    place = content.index(old, len(content) // 2)
    return content[:place] + new + content[place + len(old) :]


SEEN: dict[str, Damage] = {
    "zeros": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content[:-900] + bytes(900),
    "zeros after the end": lambda content: content + bytes(4096),
    "zeros in the middle": lambda content: content[:3000] + bytes(512) + content[3512:],
    "random bytes": lambda content: content[:3000] + bytes(range(128, 256)) + content[3128:],
    "random bytes after the end": lambda content: content + bytes(range(128, 256)),
    "zeros in the last line": lambda content: content[:-20] + bytes(19) + b"\n",
    "another number": lambda content: altered(content, b'"trial_id":', b'"trial_id":1'),
    "another loss": lambda content: altered(content, b'"values":[', b'"values":[1'),
    "another name": lambda content: altered(content, b"learning_rate", b"learning_rats"),
    "a line that is missing": lambda content: b"".join(lines(content)[:9] + lines(content)[10:]),
    "a line twice": lambda content: b"".join(lines(content)[:9] + lines(content)[8:]),
    "lines in another order": lambda content: b"".join(lines(content)[:9] + lines(content)[:8:-1]),
    "no journal": lambda content: b'{"not": "a journal"}\n',
    "a list": lambda content: b"[1]\n",
    "a word": lambda content: b"null\n",
    "an unknown operation": lambda content: content + b'{"op_code": 99}\n',
    "deep nesting": lambda content: b"[" * 99_999 + b"\n",
    "no json": lambda content: b"studies\n" * 9,
}
CUT: dict[str, Damage] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "the first line": lambda content: lines(content)[0],
    "between two lines": lambda content: b"".join(lines(content)[: len(lines(content)) * 2 // 3]),
    "in a line": lambda content: b"".join(lines(content)[:-20])[:-9],
    "two thirds": lambda content: content[: len(content) * 2 // 3],
    "a third": lambda content: content[: len(content) // 3],
    "another sweep's": lambda content: another_sweeps(),
}


def another_sweeps() -> bytes:
    """The journal of another sweep."""
    with tempfile.TemporaryDirectory() as place:
        other = plan(SWEEP.replace("made-up", "other"), "search.trials=2")
        box = Outbox(Path(place) / "outbox.db", "other")
        Simulation(resumed(other, Path(place), box)[1], valley).run()
        box.close()
        return (Path(place) / JOURNAL).read_bytes()


def goes_on(made: Plan, folder: Path, outbox: Outbox) -> tuple[str, int]:
    """Run the search to its end, with all that was there before.

    Returns:
        What was lost, and how many suggestions the studies lacked.
    """
    before = suggested(outbox)
    statuses = {record.key: record.status for record in outbox.trials()}
    search, queue, lost, lacked, removed = resumed(made, folder, outbox)
    assert removed == 0
    assert suggested(outbox) >= before
    Simulation(queue, curve, workers=3, reached={
        record.key: record.step for record in outbox.trials()
    }).run()  # fmt: skip
    assert {trial.key for trial, tags in search.known() if tags["stage"] == "search"} >= before
    study = search._studies["factorized"]
    assert study.used == BUDGET
    assert len(suggested(outbox)) == 2 * BUDGET
    for record in outbox.trials():
        assert record.status in ("FINISHED", "STOPPED", "FAILED", "WAITING")  # another seed failed
        if statuses.get(record.key) in ("FINISHED", "STOPPED", "FAILED"):
            assert record.status == statuses[record.key], "what was done is as it was"
    _, again, lost_again, lacked_again, _ = resumed(made, folder, outbox)
    assert (lost_again, lacked_again) == ("", 0)
    assert not again.waiting
    return lost, lacked


@pytest.mark.parametrize("damage", SEEN)
@pytest.mark.parametrize("folder", ["died"], indirect=True)
def test_a_damaged_file_is_set_aside_and_the_search_goes_on(
    made: Plan, folder: Path, outbox: Outbox, damage: str
) -> None:
    path = folder / JOURNAL
    spoilt = SEEN[damage](path.read_bytes())
    path.write_bytes(spoilt)
    count = len(suggested(outbox)) // 2
    lost, lacked = goes_on(made, folder, outbox)
    assert lost.endswith(f"kept as {JOURNAL}.unusable-1")
    assert (folder / f"{JOURNAL}.unusable-1").read_bytes() == spoilt
    assert lacked == count


@pytest.mark.parametrize("damage", CUT)
def test_what_a_file_lacks_comes_back_from_the_trials(
    made: Plan, folder: Path, outbox: Outbox, damage: str
) -> None:
    path = folder / JOURNAL
    path.write_bytes(CUT[damage](path.read_bytes()))
    lost, lacked = goes_on(made, folder, outbox)
    assert lost == ""
    assert lacked > 0
    assert not list(folder.glob("*unusable*"))


def test_a_line_that_was_being_written_is_removed_without_a_word(
    made: Plan, folder: Path, outbox: Outbox
) -> None:
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    assert goes_on(made, folder, outbox) == ("", 0)


def test_lines_of_other_tools_and_of_earlier_versions_are_read(
    made: Plan, folder: Path, outbox: Outbox
) -> None:
    path = folder / JOURNAL
    path.write_bytes(re.sub(rb',"crc32":\d+', b"", path.read_bytes()))  # by an earlier version
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    storage.set_study_user_attr(0, "note", "seen")  # as a dashboard does
    assert b"crc32" not in path.read_bytes()
    assert goes_on(made, folder, outbox) == ("", 0)
    storage.set_study_user_attr(0, "note", "seen again")
    opened, lost = open_study_storage(None, folder, lambda storage: storage)
    assert lost == ""
    assert opened.get_study_user_attrs(0)["note"] == "seen again"
    assert {trial.state.name for trial in opened.get_all_trials(0)} <= {
        "COMPLETE",
        "PRUNED",
        "FAIL",
    }


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to zeros"])
def test_what_is_no_file_is_set_aside(made: Plan, folder: Path, outbox: Outbox, kind: str) -> None:
    path = folder / JOURNAL
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    count = len(suggested(outbox)) // 2
    lost, lacked = goes_on(made, folder, outbox)
    assert "it is no file" in lost
    assert lacked == count


def test_a_file_that_cannot_be_read_is_the_users_to_mend(
    made: Plan, folder: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    before = (folder / JOURNAL).read_bytes()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"studies\.journal cannot be read or written: Permission"):
        resumed(made, folder, outbox)
    monkeypatch.undo()
    assert (folder / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("folder", ["died"], indirect=True)
def test_a_full_disk_is_the_users_to_mend(
    made: Plan, folder: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(journal: object, logs: object) -> None:
        raise OSError(28, "No space left on device")

    (folder / JOURNAL).write_bytes(b"")
    monkeypatch.setattr("optuna.storages.journal.JournalFileBackend.append_logs", refuse)
    with pytest.raises(UserError, match=r"cannot be read or written: No space left on device"):
        resumed(made, folder, outbox)
    monkeypatch.undo()
    goes_on(made, folder, outbox)


def test_the_command_says_what_the_journal_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> str:
        done = CliRunner().invoke(main, ["run", "sweep.yaml", *OVERRIDES, "search.trials=4"])
        assert done.exit_code == 0, done.output
        assert "no longer part of the sweep" not in done.output
        return done.output

    simulate(monkeypatch, tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert "lost" not in run()
    path = tmp_path / "state" / "sweeps" / "made-up" / JOURNAL
    path.write_bytes(b"".join(lines(path.read_bytes())[:12]))
    assert re.search(r"^lost    the studies lack \d suggestions", run(), re.MULTILINE)
    path.write_bytes(bytes(1000))
    output = run()
    assert f"kept as {JOURNAL}.unusable-1; its studies come back" in output
    assert "learnt  4 configurations from the trials of made-up" in output
    assert "lost" not in run()


def test_trials_that_confirm_stay_done_when_the_journal_of_a_small_space_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> str:
        done = CliRunner().invoke(main, ["run", "sweep.yaml", "search.trials=12"])
        assert done.exit_code == 0, done.output
        return done.output

    simulate(monkeypatch, tmp_path)
    (tmp_path / "sweep.yaml").write_text(SMALL_SPACE)
    run()
    before = run()
    (first_line,) = re.findall(r"^made-up: .*$", before, re.MULTILINE)
    assert "done" in first_line
    assert "to run" not in first_line
    path = tmp_path / "state" / "sweeps" / "made-up" / JOURNAL
    path.write_bytes(bytes(path.stat().st_size))
    after = run()
    assert "lost" in after
    assert first_line in after.splitlines()
