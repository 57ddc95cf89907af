"""A file of studies that is damaged anywhere: nothing that the outbox knows is lost with it."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sweeps.planning.plan import Plan
from sweeps.records.outbox import Outbox
from sweeps.search.study_storage import JOURNAL
from tests.fuzz import guard
from tests.sweeps.searches import SWEEP, plan, resumed, valley
from tests.sweeps.simulation import DriverDiedError, Simulation
from trainables.errors import UserError

LETTERS = [b"0", b"1", b".", b'"', b"{", b"}", b"[", b",", b":", b"\n", b"e", b"-"]
Damage = tuple[int, int, bytes]  # from a place to another, these bytes instead


def damages(size: int) -> SearchStrategy[Damage]:
    """Cuts, and bytes that are changed, inserted or removed."""
    place = st.integers(0, size)
    zeros = st.integers(1, 512).map(bytes)
    piece = st.one_of(st.just(b""), st.binary(max_size=9), zeros, st.sampled_from(LETTERS))
    cut = st.tuples(place, st.just(size), st.just(b""))
    exchange = st.builds(lambda start, new: (start, start + len(new), new), place, piece)
    return st.one_of(cut, exchange, st.tuples(place, place, piece))


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(SWEEP, "search.trials=5")


@pytest.fixture(scope="module")
def died(made: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search whose driver died in the middle."""
    folder = tmp_path_factory.mktemp("died")
    with closing(Outbox(folder / "outbox.db", "made-up")) as outbox:
        _, queue, *_ = resumed(made, folder, outbox)
        with pytest.raises(DriverDiedError):
            Simulation(queue, valley, dies_after=40).run()
        assert {record.status for record in outbox.trials()} >= {"RUNNING", "FINISHED"}
    return folder


@guard.efforts
def test_a_damaged_journal_costs_no_trial(
    effort: settings, made: Plan, died: Path, tmp_path: Path
) -> None:
    whole = (died / JOURNAL).read_bytes()
    fewer = settings(effort, max_examples=max(25, effort.max_examples // 20))  # it writes to disk

    def open_damaged(damage: Damage) -> None:
        start, end, new = damage
        shutil.rmtree(tmp_path / "sweep", ignore_errors=True)
        folder = Path(shutil.copytree(died, tmp_path / "sweep"))
        (folder / JOURNAL).write_bytes(whole[:start] + new + whole[end:])
        with closing(Outbox(folder / "outbox.db", "made-up")) as outbox:
            before = {record.key for record in outbox.trials()}
            _, queue, _, _, removed = resumed(made, folder, outbox)
            assert removed == 0
            assert {record.key for record in outbox.trials()} >= before
            queue.fill()
            assert queue.waiting

    @fewer
    @given(damages(len(whole)))
    def check(damage: Damage) -> None:
        guard.only(UserError, lambda: open_damaged(damage))

    check()
