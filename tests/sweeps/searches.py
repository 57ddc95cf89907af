"""Searches for tests, over made-up losses: nothing is trained and no Ray runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import optuna

from plain_yaml import parse_yaml
from sweeps.outbox import Outbox
from sweeps.plan import Plan, expand, override
from sweeps.search import Search
from sweeps.spec import SweepFile
from sweeps.studies import Study
from sweeps.study_storage import open_storage
from trainables.config import TrialConfig
from trainables.corpus import Corpus, tokenise
from trainables.errors import validate
from trainables.verse import write_play

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


def plan(text: str = SWEEP, *overrides: str) -> Plan:
    sweep = override(validate(SweepFile, parse_yaml(text), "test: "), overrides)
    return expand(sweep, corpus(), "test")


def studies(made: Plan, storage: optuna.storages.BaseStorage | Path | None = None) -> list[Study]:
    """The studies of a plan: in memory, or in a folder."""
    if isinstance(storage, Path):
        storage, _ = open_storage(None, storage)
    store = storage or optuna.storages.InMemoryStorage()
    sweep = made.sweep
    taken = {trial.key for trial in made.trials}
    return [
        Study(cell, sweep.search, sweep.seeds, store, sweep.name, made.share, made.costs, taken)
        for cell in made.cells
    ]


def search(made: Plan, storage: optuna.storages.BaseStorage | Path | None = None) -> Search:
    """A search of a plan, without an outbox."""
    sweep = made.sweep
    return Search(studies(made, storage), sweep.search, sweep.confirm_seeds)


def valley(trial: TrialConfig) -> dict[int, float]:
    """A loss that is lowest, 1 nat, at a learning rate of 1e-2, with a little of the seed in it."""
    away = abs(math.log10(trial.flat["learning_rate"]) + 2)
    noise = (trial.seed % 10) / 1000
    return {step: 1 + away + noise + 1 / step for step in range(10, STEPS + 1, 10)}


def record(
    outbox: Outbox, made: Plan, trials: Sequence[tuple[TrialConfig, dict[str, str]]]
) -> None:
    """What `sweeps.service` announces."""
    from sweeps.description import describe_trial

    outbox.add({trial.key: describe_trial(made, trial, tags) for trial, tags in trials})
