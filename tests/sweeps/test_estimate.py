"""What the estimate times, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import sweeps.estimate
from sweeps.estimate import TRIAL_OVERHEAD_S, Probe, estimate
from trainables.config import TrialConfig
from trainables.corpus import tokenise

MakeTrial = Callable[..., TrialConfig]

CORPUS = tokenise("verse", "to be or not to be\n" * 50)
TOKENS = len(CORPUS.train) + len(CORPUS.validation)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths that are probed; a width takes so many seconds a step, and bytes."""
    widths: list[int] = []

    def probe(trial: TrialConfig, *_: object) -> Probe:
        width = trial.flat["n_embd"]
        widths.append(width)
        return Probe(step_s=width, token_s=width / 8, memory_bytes=width, weights_bytes=width)

    monkeypatch.setattr(sweeps.estimate, "probe", probe)
    return widths


def test_each_shape_is_timed_once_whatever_else_differs(
    probed: list[int], make_trial: MakeTrial
) -> None:
    trials = [
        make_trial("factorized", n_embd=width, learning_rate=rate, max_steps=steps, seed=seed)
        for width in (8, 16)
        for rate in (1e-2, 1e-3)
        for steps in (100, 1000)
        for seed in (1, 2)
    ]
    cost = estimate(trials, CORPUS)
    assert sorted(probed) == [8, 16]
    for trial in trials:
        width, steps = trial.flat["n_embd"], trial.training.max_steps
        evaluations = -(-steps // trial.training.eval_every)
        expected_s = TRIAL_OVERHEAD_S + width * steps + width / 8 * evaluations * TOKENS
        assert cost.of(trial.key) == pytest.approx(expected_s)


def test_a_random_evaluation_costs_by_its_batches(probed: list[int], make_trial: MakeTrial) -> None:
    sampled = {"evaluation": "sampled", "eval_batches": 3, "batch_size": 2, "block_size": 4}
    trial = make_trial("factorized", n_embd=8, max_steps=10, **sampled)
    seconds = estimate([trial], CORPUS).of(trial.key)
    assert seconds == pytest.approx(TRIAL_OVERHEAD_S + 8 * 10 + 8 / 8 * 2 * 3 * 2 * 4)
    assert probed == [8]


def test_without_time_for_all_shapes_the_others_cost_their_mean(
    probed: list[int], make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps.estimate, "PROBING_S", 0)
    trials = [make_trial("factorized", n_embd=width, max_steps=10) for width in range(8, 40)]
    cost = estimate(trials, CORPUS)
    assert len(probed) == 1
    assert len({cost.of(trial.key) for trial in trials}) == 1
    assert Probe.mean([Probe(1, 2, 3, 4), Probe(3, 4, 5, 6)]) == Probe(2, 3, 4, 5)


def test_a_trial_that_cannot_be_timed_costs_the_least(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Probe:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(sweeps.estimate, "probe", broken)
    trial = make_trial("factorized", n_embd=8)
    assert estimate([trial], CORPUS).of(trial.key) == TRIAL_OVERHEAD_S
    assert caplog.messages == [
        "factorized cannot be timed, so what is estimated leaves it out: no such kernel"
    ]


@pytest.mark.parametrize("variant", ["bigram", "attention", "count"])
def test_a_real_shape_is_timed(variant: str, make_trial: MakeTrial) -> None:
    trial = make_trial(variant, max_steps=10)
    cost = estimate([trial], CORPUS).costs[trial.key]
    assert cost.seconds > TRIAL_OVERHEAD_S
    assert (cost.memory_bytes > 0) == (variant != "count")
