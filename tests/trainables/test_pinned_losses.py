"""The losses of tiny trials as they were: what changes them must bump the result version."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainables.config import RESULT_VERSION, TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits, initial_state, train

MakeTrial = Callable[..., TrialConfig]


@pytest.mark.parametrize(
    ("variant", "settings", "train_loss", "val_loss"),
    [
        ("bigram", {}, 4.084627224, 4.081315833),
        ("factorized", {"n_embd": 16, "batch_size": 32}, 2.861367780, 2.867431771),
        (
            "attention",
            {"pe_type": "randn", "n_embd": 8, "block_size": 16},
            3.137460219,
            3.143071259,
        ),
        (
            "attention",
            {"pe_type": "sinpe", "n_embd": 64, "evaluation": "sampled"},
            2.476857603,
            2.478342056,
        ),
        (
            "attention",
            {"pe_type": "rope", "n_embd": 64, "block_size": 16},
            2.468341615,
            2.471668662,
        ),
        ("count", {"smoothing": 1}, 2.293768123, 2.297154505),
    ],
    ids=str,
)
def test_losses_are_pinned(
    variant: str,
    settings: dict[str, Any],
    train_loss: float,
    val_loss: float,
    embedded: Corpus,
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(variant, max_steps=40, eval_batches=20, seed=42, **settings)
    state = initial_state(trial, embedded.vocab_size)
    splits = Splits.of(embedded, torch.device("cpu"))
    *_, last = train(state, splits, trial.training, trial.seed)
    expected = pytest.approx((train_loss, val_loss), rel=2e-6)
    assert (last.train_loss, last.val_loss) == expected, (
        f"the losses changed: bump RESULT_VERSION (now {RESULT_VERSION}) in trainables/config.py"
        " and pin the new ones, or undo the change"
    )
