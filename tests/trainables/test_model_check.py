"""Models of the user's own that break the contract are refused, or warned about."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from trainables.config import TrialConfig
from trainables.errors import UserError
from trainables.model_check import check_models
from trainables.variants import model_class, settings_schema

MakeTrial = Callable[..., TrialConfig]

SOURCE = """
from dataclasses import dataclass

import torch
from torch import nn

from bigram_models import FittedModel, LanguageModel


class Good(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        n_embd: int = 4

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.embed = nn.Parameter(torch.randn(vocab_size, config.n_embd, generator=generator))
        self.head = nn.Parameter(torch.randn(config.n_embd, vocab_size, generator=generator))

    def forward(self, ids_BT):
        return self.embed[ids_BT].cumsum(1) @ self.head


class Channels(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT)[..., :-1]


class Flat(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT).flatten(0, 1)


class Pair(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT), None


class Double(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT).double()


class Future(Good):
    def forward(self, ids_BT):
        x = self.embed[ids_BT]
        return (x + x.mean(1, keepdim=True)) @ self.head


class NextToken(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT).roll(-1, 1)


class Frozen(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.requires_grad_(False)


class Unseeded(Good):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.more = nn.Linear(3, 3)


class Dropout(Good):
    def forward(self, ids_BT):
        return nn.functional.dropout(super().forward(ids_BT), 0.5, self.training)


class Raises(Good):
    def forward(self, ids_BT):
        raise RuntimeError("not on this machine")


class Fitted(FittedModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.register_buffer("counts", torch.zeros(vocab_size))

    def fit(self, tokens_N):
        self.counts += tokens_N.bincount(minlength=self.vocab_size)

    def forward(self, ids_BT):
        return self.counts.expand(*ids_BT.shape, -1).log1p()
"""


@pytest.fixture(autouse=True)
def contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "contract.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("contract", None)
    model_class.cache_clear()
    settings_schema.cache_clear()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Channels", r"shape \(2, 8, 10\) for token ids \(2, 8\); it must be .* \(2, 8, 11\)"),
        ("Flat", r"shape \(16, 11\)"),
        ("Pair", "forward returns tuple, not a tensor"),
        ("Double", "torch.float64; logits are torch.float32"),
        ("Future", "sees the future"),
        ("NextToken", "sees the future"),
        ("Frozen", "no parameter to train"),
    ],
)
def test_what_breaks_the_contract_is_refused(
    name: str, message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UserError, match=f"contract:{name}.*{message}"):
        check_models([make_trial(f"contract:{name}")], 11)


@pytest.mark.parametrize(
    ("name", "message"),
    [("Unseeded", "from `generator`"), ("Dropout", "random in training")],
)
def test_what_no_seed_covers_is_warned_about(
    name: str, message: str, make_trial: MakeTrial
) -> None:
    before = torch.random.get_rng_state()
    (warning,) = check_models([make_trial(f"contract:{name}", seed=s) for s in (1, 2)], 11)
    assert warning.startswith(f"contract:{name}: ")
    assert message in warning
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["contract:Good", "contract:Fitted", "contract:Raises", "bigram"])
def test_all_others_may_train(name: str, make_trial: MakeTrial) -> None:
    assert check_models([make_trial(name), make_trial(name, block_size=1)], 11) == []
