"""The first lines of `sweeps run`: what will be done, and what is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sweeps.cli.main import main
from tests.sweeps.searches import simulate, valley
from tests.sweeps.simulation import DriverDiedError, Simulation

SEARCH = """
name: s1
corpus: file:play.txt
training: {max_steps: 100, eval_every: 10, block_size: 4, batch_size: 8}
arms:
  - model: {variant: attention, n_embd: 8}
    grid: {model.pe_type: [rope, randn]}
    search: {training.learning_rate: {low: 1e-4, high: 1, log: true}}
search: {trials: 10, stopping: none, confirm: {top: 1, replicates: 3}}
"""
GRID = """
  - model: {variant: bigram}
    grid: {training.block_size: [2, 4]}
"""
Heads = Callable[..., list[str]]


@pytest.fixture
def heads(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heads:
    """Run a sweep, whose driver dies after some events; return its first line and the search's."""
    simulate(monkeypatch, tmp_path)
    monkeypatch.delenv("SWEEPS_STATE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    Path("state").mkdir()
    shutil.copy(empty_store, "state/mlflow.db")

    def run(*overrides: str, text: str = SEARCH, dies_after: int | None = None) -> list[str]:
        def train(sweep_run: Any, queue: Any) -> None:
            listen = queue.on_event
            queue.on_event = lambda event: (sweep_run.outbox.record(event), listen(event))
            Simulation(queue, valley, dies_after=dies_after).run()

        monkeypatch.setattr("sweeps.execution.service.train", train)
        Path("sweep.yaml").write_text(text)
        done = CliRunner().invoke(main, ["run", "sweep.yaml", *overrides])
        if dies_after is None:
            assert done.exit_code == 0, done.output
        else:
            assert isinstance(done.exception, DriverDiedError)
        return [line for line in done.output.splitlines() if line.startswith(("s1:", "search "))]

    return run


def test_a_search_says_first_what_will_be(heads: Heads) -> None:
    first, second = heads(dies_after=60)
    assert first == "s1: 0 done, 10 suggestions in 2 studies, then 6 trials to confirm the winners"
    assert second == "search  0 of 10 suggestions made so far (tpe)"


def test_a_search_that_goes_on_says_what_is_left(heads: Heads) -> None:
    heads(dies_after=60)  # of 12 events a trial, two at once
    first, second = heads()
    assert first == (
        "s1: 4 done, 2 to run, 4 more suggestions in 2 studies,"
        " then 6 trials to confirm the winners"
    )
    assert second == "search  6 of 10 suggestions made so far (tpe)"
    assert heads() == ["s1: 16 done", "search  10 of 10 suggestions made so far (tpe)"]
    first, _ = heads("search.trials=11")
    more = "1 more suggestion in 2 studies, then 6 trials to confirm the winners"
    assert first == f"s1: 10 done, {more}"


def test_only_winners_may_be_left_to_confirm(heads: Heads) -> None:
    heads("search.confirm=null")
    first, _ = heads(dies_after=30)
    assert first == "s1: 10 done, then 6 trials to confirm the winners"
    first, _ = heads()
    assert first == "s1: 12 done, then 4 trials to confirm the winners"
    first, _ = heads("search.confirm=null")
    assert first == "s1: 10 done, 6 no longer part of the sweep"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["search.trials=3", "search.confirm=null"], "0 done, 3 suggestions in 2 studies"),
        (["search.trials=null", "search.patience=1"], "0 done, suggestions in 2 studies, then 6"),
    ],
)
def test_what_limits_the_search_is_in_its_first_line(
    overrides: list[str], words: str, heads: Heads
) -> None:
    first, _ = heads(*overrides, dies_after=3)
    assert first.startswith(f"s1: {words}")


def test_the_trials_of_a_grid_beside_a_search_are_counted_apart(heads: Heads) -> None:
    text = SEARCH.replace("search: {trials", f"{GRID}search: {{trials").replace("\n\n", "\n")
    first, _ = heads(text=text, dies_after=3)
    assert first == (
        "s1: 0 done, 8 to run, 10 suggestions in 2 studies, then 6 trials to confirm the winners"
    )
