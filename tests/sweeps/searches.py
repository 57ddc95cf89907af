"""Searches for tests, over made-up losses: nothing is trained and no Ray runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest

from analysis.text.plain_yaml import parse_yaml
from sweeps.execution.run import RunContext
from sweeps.planning.overriding import override
from sweeps.planning.plan import Plan
from sweeps.planning.planner import expand
from sweeps.records.outbox import Outbox
from sweeps.search.queue import Queue
from sweeps.search.search import Search, known_studies
from sweeps.search.study import Study, open_studies
from sweeps.search.study_storage import open_study_storage
from sweeps.spec.sweep_file import SweepFile
from sweeps.tracking.description import describe_trial
from tests.sweeps.simulation import Simulation
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus, tokenise
from trainables.data.verse import write_play
from trainables.errors import validate

STEPS = 100  # each trial evaluates ten times
SWEEP = f"""
name: made-up
corpus: file:play.txt
training: {{max_steps: {STEPS}, eval_every: 10, block_size: 4}}
arms:
  - model: {{variant: factorized}}
    search:
      model.n_embd: {{low: 2, high: 32}}
      training.learning_rate: {{low: 1e-4, high: 1, log: true}}
search: {{trials: 20, stopping: none, confirm: null}}
"""


@functools.cache
def corpus() -> Corpus:
    return tokenise("play", write_play(characters=20_000))


def simulate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the commands work in a folder with a corpus, and simulate trials instead of training."""

    def train(run: RunContext, queue: Search) -> None:
        listen = queue.on_event
        queue.on_event = lambda event: (run.outbox.record(event), listen(event))  # type: ignore
        Simulation(queue, valley).run()

    monkeypatch.setattr("sweeps.execution.service.train", train)
    monkeypatch.chdir(folder)
    (folder / "play.txt").write_text(write_play(characters=20_000))


def plan(text: str = SWEEP, *overrides: str) -> Plan:
    sweep = override(validate(SweepFile, parse_yaml(text), "test: "), overrides)
    return expand(sweep, corpus(), "test")


def studies(made: Plan, storage: optuna.storages.BaseStorage | Path | None = None) -> list[Study]:
    """The studies of a plan: in memory, or in a folder."""
    if isinstance(storage, Path):
        (found, _), _ = open_study_storage(None, storage, functools.partial(open_studies, made))
    else:
        found, _ = open_studies(made, storage or optuna.storages.InMemoryStorage())
    return found


def search(made: Plan, storage: optuna.storages.BaseStorage | Path | None = None) -> Search:
    """A search of a plan, without an outbox."""
    sweep = made.sweep
    return Search(studies(made, storage), sweep.search, sweep.confirm_seeds)


def continued(search: Search) -> Queue:
    """Return the queue of a search that an earlier driver began, and whose outbox was lost."""
    queue = Queue(search)
    search.resume({}, lambda key: [], queue)
    return queue


def valley(trial: TrialConfig) -> dict[int, float]:
    """A loss that is lowest, 1 nat, at a learning rate of 1e-2, with a little of the seed in it."""
    away = abs(math.log10(trial.flat["learning_rate"]) + 2)
    noise = (trial.seed % 10) / 1000
    return {step: 1 + away + noise + 1 / step for step in range(10, STEPS + 1, 10)}


def record(
    outbox: Outbox, made: Plan, trials: Sequence[tuple[TrialConfig, dict[str, str]]]
) -> None:
    """Add trials to an outbox, as a run does when a search announces them."""
    outbox.add({trial.key: describe_trial(made, trial, tags) for trial, tags in trials})


def resumed(made: Plan, folder: Path, outbox: Outbox) -> tuple[Search, Queue, str, int, int]:
    """Open a search, as a run does.

    Returns:
        The search, its queue, what was lost of the journal, how many suggestions the studies
        lacked, and how many trials are no longer part of the sweep.
    """
    (found, _, lacked), lost = open_study_storage(
        None, folder, functools.partial(known_studies, made, outbox)
    )
    sweep = made.sweep
    search = Search(
        found, sweep.search, sweep.confirm_seeds, sweep.resources.max_failures,
        lambda tagged: record(outbox, made, tagged),
    )  # fmt: skip
    trials = {t.key: describe_trial(made, t, tags) for t, tags in search.known()}
    removed = outbox.describe({}, trials)
    queue = Queue(search)
    search.resume({trial.key: trial for trial in outbox.trials()}, outbox.history, queue)
    for event in queue.pending_events():
        outbox.record(event)
    listen = queue.on_event
    queue.on_event = lambda event: (outbox.record(event), listen(event))  # type: ignore
    return search, queue, lost, lacked, removed
