"""What a sweep says from its first second: what it does now, and how far it is."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sweeps.execution.progress import Before, Progress
from sweeps.process.phases import phase
from sweeps.process.summary import WANTS_JSON, last_summary, without_json
from sweeps.records.events import TrialEvent
from sweeps.search.queue import TrialSource
from tests.analysis.test_terminal import Stream
from tests.sweeps.searches import SWEEP, plan, search
from tests.sweeps.test_tracking import evaluation


def progress(total: int | None = 2) -> Progress:
    """Of two trials of ten steps, of 1 s each."""
    trials = {key: SimpleNamespace(training=SimpleNamespace(max_steps=10), key=key) for key in "ab"}
    made: Any = SimpleNamespace(
        sweep=SimpleNamespace(name="study"),
        names=SimpleNamespace(run_name=lambda trial: f"rope {trial.key}"),
    )
    queue: Any = SimpleNamespace(trial=trials.get, source=TrialSource())
    cost: Any = SimpleNamespace(of=lambda key: 1.0, work_s=2.0)
    return Progress(made, queue, cost, total, Before(), "60 suggestions in 1 study, 2 at once")


def train(shown: Progress) -> None:
    """Finish one trial, and take another to its middle."""
    for key in "ab":
        shown.on_event(TrialEvent(key, "started"))
    shown.on_event(TrialEvent("a", "progressed", 10, [evaluation(10)]))
    shown.on_event(TrialEvent("a", "finished"))
    shown.on_event(TrialEvent("b", "progressed", 5, [evaluation(5)]))


def test_a_phase_is_a_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with phase("starting Ray", said.append):
        assert said == ["now     starting Ray"], "before it begins"
    with phase("opening MLflow"):
        pass
    assert (said, capsys.readouterr().out) == (["now     starting Ray"], "")


def test_a_phase_is_shown_on_a_terminal_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(is_terminal=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    said: list[str] = []
    with phase("starting [/red]Ray", said.append):
        assert "starting [/red]Ray" in stream.text
        assert "0:00:00" in stream.text
    assert said == []
    assert stream.text.endswith("\x1b[2K"), "nothing of it is left"


def test_lines_say_what_will_be_that_it_trains_and_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WANTS_JSON, "1")
    shown = progress()
    with shown.shown():
        monkeypatch.setattr(
            "sweeps.execution.progress.QUIET_S", -1.0
        )  # it speaks at each evaluation
        train(shown)
    output = capsys.readouterr().out
    lines = "".join(without_json([output])).splitlines()
    assert 2 * len(lines) == len(output.splitlines())  # each has its JSON
    said = [line.partition(" | ")[2] for line in lines]
    assert said == [
        "starting workers: 60 suggestions in 1 study, 2 at once",
        "training",
        "rope a at step 10, val_loss 2.7500",
        "rope a finished",
        "rope b at step 5, val_loss 3.3750",
    ]
    found = last_summary(output)
    assert found
    assert (found.done, found.total, found.running) == (1, 2, 1)
    assert found.elapsed == "0 s"


def test_a_terminal_shows_a_bar_the_losses_and_the_last_trial() -> None:
    def seen() -> list[str]:
        with console.capture() as captured:
            console.print(shown._view())
        return captured.get().splitlines()

    console = Console(width=100, color_system=None, markup=False, highlight=False)
    shown = progress()
    first = seen()
    assert first[0] == "study: 60 suggestions in 1 study, 2 at once"
    assert any("workers are being started" in line for line in first)
    train(shown)
    _, bar, *rows = seen()
    assert (bar.count("━"), bar.split()[-1]) == (30, "75%")
    (running,) = (line for line in rows if "rope b" in line and "/10" in line)
    assert running.split()[1:-1] == ["rope", "b", "│", "5/10", "│", "3.3750"]
    assert rows[-1] == "last: rope a finished, val_loss 2.7500"
    assert not any("workers are being started" in line for line in rows)


def test_a_search_says_what_will_be() -> None:
    assert search(plan(SWEEP)).remaining_in_words == "20 suggestions in 1 study"
    assert search(plan(SWEEP, "search.trials=1")).remaining_in_words == "1 suggestion in 1 study"
    assert search(plan(SWEEP, "search.hours=1", "search.trials=null")).remaining_in_words == (
        "suggestions in 1 study"
    )
