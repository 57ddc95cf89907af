"""Costs that are predicted from what a step computes: nothing is timed."""

from __future__ import annotations

import pytest

import sweeps.planning.estimate
from sweeps.planning.estimate import estimate
from sweeps.planning.predicting import count_all
from sweeps.planning.probing import shape
from tests.conftest import MakeTrial
from trainables.data.corpus import tokenise
from trainables.data.verse import write_play

CORPUS = tokenise("play", write_play(characters=20_000))


def test_a_sweep_that_starts_times_nothing(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps.planning.estimate, "probe_all", lambda *_: pytest.fail("timed"))
    small, large, fitted = trials = [
        make_trial("attention", n_embd=8, block_size=8, max_steps=100),
        make_trial("attention", n_embd=64, block_size=32, max_steps=100),
        make_trial("count"),
    ]
    cost = estimate(trials, CORPUS, times=False)
    assert cost.of(large.key) > 2 * cost.of(small.key) > 2 * cost.of(fitted.key) > 0
    assert cost.work_s == pytest.approx(sum(cost.of(trial.key) for trial in trials))
    assert cost.basis == "predicted by operations and bytes"


def test_more_sequences_take_longer_and_evaluate_as_fast(make_trial: MakeTrial) -> None:
    trials = [make_trial("attention", n_embd=32, batch_size=batch) for batch in (8, 64)]
    found = count_all({shape(trial): trial for trial in trials}, CORPUS.vocab_size).by_shape
    few, more = (found[shape(trial)] for trial in trials)
    assert few.step_s < more.step_s < 8 * few.step_s
    assert more.token_s < few.token_s
    assert few.weights_bytes == more.weights_bytes > 0
