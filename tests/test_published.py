"""Cells of the published study at the full protocol, on tinyshakespeare."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch

from benchmarks.published_stream import Cell, train_as_published
from trainables.config import TrialConfig
from trainables.corpus import Corpus
from trainables.training import Splits, initial_state, train

pytestmark = pytest.mark.slow

CELLS = [
    Cell("attention", "rope", 64, 16, 2.34373, 2.37046),
    Cell("attention", "sinpe", 64, 16, 2.37837, 2.40813),
    Cell("attention", "randn", 64, 16, 2.42484, 2.44766),
    Cell("attention", "rope", 128, 8, 2.38531, 2.40827),
    Cell("attention", "sinpe", 128, 8, 2.40868, 2.43876),
    Cell("attention", "randn", 128, 8, 2.44028, 2.46785),
]


def train_as_a_sweep(trial: TrialConfig, corpus: Corpus) -> tuple[float, float]:
    torch.set_num_threads(1)
    sampled = trial.training.model_copy(update={"evaluation": "sampled", "eval_every": 5_000})
    splits = Splits.of(corpus, torch.device("cpu"))
    (last,) = train(initial_state(trial, corpus.vocab_size), splits, sampled, trial.seed)
    return last.train_nats, last.val_nats


@pytest.fixture(scope="module")
def losses(tinyshakespeare: Corpus) -> dict[str, dict[str, tuple[float, float]]]:
    """Train and validation loss by cell, with the study's stream and as a sweep trains."""
    trials = [cell.trial(tinyshakespeare) for cell in CELLS]
    corpora = [tinyshakespeare] * len(trials)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        ways = {
            way.__name__: pool.map(way, trials, corpora)
            for way in (train_as_published, train_as_a_sweep)
        }
        names = [cell.name for cell in CELLS]
        return {way: dict(zip(names, results, strict=True)) for way, results in ways.items()}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_study_s_random_numbers_give_the_study_s_losses(
    cell: Cell, losses: dict[str, dict[str, tuple[float, float]]]
) -> None:
    train_nats, val_nats = losses["train_as_published"][cell.name]
    assert val_nats == pytest.approx(cell.val_loss, abs=0.015)
    assert train_nats == pytest.approx(cell.train_loss, abs=0.02)


@pytest.mark.parametrize("n_embd", [64, 128])
def test_rope_beats_sinpe_beats_randn_as_a_sweep_trains(
    n_embd: int, losses: dict[str, dict[str, tuple[float, float]]]
) -> None:
    found = losses["train_as_a_sweep"]
    rope, sinpe, randn = (found[cell.name][1] for cell in CELLS if cell.n_embd == n_embd)
    assert rope < sinpe < randn


def test_a_cell_s_name_says_what_it_is() -> None:
    assert CELLS[0].name == "rope/64/16"
    assert replace(CELLS[0], variant="bigram", pe_type=None).name == "bigram"
