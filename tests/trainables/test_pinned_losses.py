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
        ("bigram", {}, 4.084849006, 4.082528311),
        ("factorized", {"n_embd": 16, "batch_size": 32}, 2.856231899, 2.861427011),
        (
            "attention",
            {"pe_type": "randn", "n_embd": 8, "block_size": 16},
            3.135644075,
            3.141712756,
        ),
        (
            "attention",
            {"pe_type": "sinpe", "n_embd": 64, "evaluation": "sampled"},
            2.480112064,
            2.495832133,
        ),
        (
            "attention",
            {"pe_type": "rope", "n_embd": 64, "block_size": 16},
            2.467922779,
            2.472700975,
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
