"""Precisions of the steps: another key, other losses, and nothing that stays behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.model_cases import every_encoding
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.precision import computed_in
from trainables.training.loop import Splits, TrainingState, initial_state, train
from trainables.training.stack import Member, Stack

MakeTrial = Callable[..., TrialConfig]
CORPUS = tokenise("verse", "to be or not to be, that is the question\n" * 40)
SPLITS = Splits.of(CORPUS, torch.device("cpu"))


def trained(trial: TrialConfig, is_stacked: bool = False) -> TrainingState:
    state = initial_state(trial, CORPUS.vocab_size)
    if is_stacked:
        stack = Stack([Member(trial, state)], SPLITS)
        while stack.members:
            stack.advance()
    else:
        list(train(state, SPLITS, trial.training, trial.seed))
    return state


@pytest.mark.parametrize("is_stacked", [False, True])
@every_encoding
def test_bf16_trains_nearly_as_well_in_float32_parameters(
    make_trial: MakeTrial, pe_type: str, is_stacked: bool
) -> None:
    settings = {"pe_type": pe_type, "n_embd": 16, "max_steps": 60, "eval_every": 60}
    losses = {}
    for precision in ("float32", "bf16"):
        trial = make_trial("attention", precision=precision, **settings)
        state = trained(trial, is_stacked)
        assert {p.dtype for p in state.model.parameters()} == {torch.float32}
        assert state.last
        losses[precision] = state.last.val_loss
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.05)


def test_another_precision_is_another_trial(make_trial: MakeTrial) -> None:
    keys = {make_trial(precision=each).key for each in ("float32", "tf32", "bf16")}
    assert len(keys) == 3
    assert make_trial(precision="float32").key == make_trial().key


def test_tf32_holds_for_the_steps_alone() -> None:
    assert not torch.backends.cuda.matmul.allow_tf32
    with computed_in("tf32", torch.device("cpu")):
        assert torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
