"""What Ray says while a sweep runs, in a line each."""

from __future__ import annotations

import pytest
import ray._private.worker

from sweeps.cluster.notices import Places, notices

DEATH = (  # as Ray writes it, with its colours
    "\x1b[33mThe node with node id: 2f5a and address: 172.27.0.5 and node name: 172.27.0.5 has been"
    " marked dead because the detector has missed too many heartbeats from it. This can happen when"
    " a \t(1) raylet crashes unexpectedly (OOM, etc.) \n\t(2) raylet has lagging heartbeats due to"
    " slow network or busy workload.\x1b[0m"
)


def said(places: Places, text: str, capsys: pytest.CaptureFixture[str]) -> str:
    with notices(places):
        ray._private.worker.print_to_stdstream(
            {"lines": [text], "pid": "raylet", "is_err": False}, ignore_prefix=False
        )
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("packs", "expected"),
    [
        ({}, "lost    machine 172.27.0.5 died\n"),
        ({"a": 1}, "lost    machine 172.27.0.5 died, 1 trial continues elsewhere\n"),
        ({"a": 1, "b": 3}, "lost    machine 172.27.0.5 died, 4 trials continue elsewhere\n"),
    ],
)
def test_a_dead_machine_is_one_line(
    packs: dict[str, int], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = Places()
    places.add("elsewhere", "172.27.0.6", 2)
    places.add("over", "172.27.0.5", 1)
    places.discard("over")
    for pack, trials in packs.items():
        places.add(pack, "172.27.0.5", trials)
    assert said(places, DEATH, capsys) == expected


def test_trials_whose_worker_died_first_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places()
    places.add("a", "172.27.0.5", 2)
    places.lose("a")
    places.add("a", "172.27.0.6", 2)
    assert ", 2 trials continue elsewhere" in said(places, DEATH, capsys)
    monkeypatch.setattr("sweeps.cluster.notices.RECENT_S", 0.0)  # long ago
    assert "trial" not in said(places, DEATH, capsys)


def test_other_words_of_ray_are_one_line_without_colour(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = said(Places(), "\x1b[31m2 Workers killed\ndue to memory pressure\x1b[0m", capsys)
    assert line.startswith("ray     ")
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_ray_prints_itself_again_afterwards() -> None:
    before = ray._private.worker.print_to_stdstream
    with notices(Places()):
        assert ray._private.worker.print_to_stdstream is not before
    assert ray._private.worker.print_to_stdstream is before
