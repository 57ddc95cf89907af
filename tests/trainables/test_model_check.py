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
        raise RuntimeError("no such\\nkernel")


class Exits(Good):
    def forward(self, ids_BT):
        raise SystemExit(3)


class Unbuilt(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        raise KeyError("width")


class Constructor(Good):
    def __init__(self, config):
        super().__init__(config, 11, 8, None)


class NoForward(Good):
    forward = None


class Abstract(LanguageModel):
    Config = Good.Config


class Detached(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT).detach()


class Elsewhere(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.hidden = [torch.zeros(self.vocab_size, requires_grad=True)]

    def forward(self, ids_BT):
        return self.hidden[0].expand(*ids_BT.shape, -1)


class NoBackward(Good):
    def forward(self, ids_BT):
        logits_BTV = super().forward(ids_BT).exp()
        logits_BTV.detach_().requires_grad_()
        logits_BTV.register_hook(lambda gradient: 1 / 0)
        return logits_BTV * 1


class Sparse(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.table = nn.Embedding(self.vocab_size, self.vocab_size, sparse=True)

    def forward(self, ids_BT):
        return self.table(ids_BT)


class Steep(Good):
    def forward(self, ids_BT):
        return (super().forward(ids_BT) * 0).sqrt()


class Lazy(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.more = nn.LazyLinear(3)


class WholeBlock(Good):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.place = nn.Parameter(torch.randn(block_size, config.n_embd, generator=generator))

    def forward(self, ids_BT):
        return (self.embed[ids_BT] + self.place) @ self.head


class LongBlock(WholeBlock):
    def forward(self, ids_BT):
        return super().forward(ids_BT) if ids_BT.shape[1] > 3 else Good.forward(self, ids_BT)


class OnePair(Good):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.context_size = 1

    def forward(self, ids_BT):
        assert ids_BT.shape[1] in (1, 8), "one token, or a block"
        return super().forward(ids_BT)


class Contextless(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.context_size = 0


class LongMemory(WholeBlock):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.context_size = 100

    def forward(self, ids_BT):
        return (self.embed[ids_BT] + self.place[: ids_BT.shape[1]]) @ self.head


class Cached(Good):
    mask = None

    def forward(self, ids_BT):
        if not self.training:
            self.mask = self.head * 2
        return super().forward(ids_BT) if self.mask is None else self.embed[ids_BT] @ self.mask


class Nan(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT) * float("nan")


class Infinite(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT).masked_fill(ids_BT[..., None] == 1, -torch.inf)


class RandomAlways(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT) + torch.randn(self.vocab_size)


class Remembers(Good):
    calls = 0

    def forward(self, ids_BT):
        self.calls += 1
        return super().forward(ids_BT) * self.calls


class FutureAtTheEnd(Good):
    def forward(self, ids_BT):
        return super().forward(ids_BT) + 5 * self.head[0, ids_BT[:, -1:]][..., None]


class BehindOneToken(Future):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.context_size = 1


class OtherVocabulary(Good):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, block_size, vocab_size, generator)


class Cuda(Good):
    def forward(self, ids_BT):
        raise RuntimeError("Found no NVIDIA driver on your system")


class Large(Good):
    def forward(self, ids_BT):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")


class WideFails(Good):
    def forward(self, ids_BT):
        assert self.embed.shape[1] < 6, "too wide"
        return super().forward(ids_BT)


class Prints(Good):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        print("built")

    def forward(self, ids_BT):
        print("called")
        return super().forward(ids_BT)


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


class Unsmoothed(Fitted):
    def forward(self, ids_BT):
        return (self.counts * 0).expand(*ids_BT.shape, -1).log()


class NoFit(Fitted):
    def fit(self, tokens_N):
        nn.functional.one_hot(tokens_N)


class Bufferless(Fitted):
    def __init__(self, config, vocab_size, block_size, generator):
        FittedModel.__init__(self, vocab_size, context_size=1)
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
        ("BehindOneToken", "sees the future"),
        ("FutureAtTheEnd", "sees the future"),
        ("Frozen", "no parameter to train"),
        ("Contextless", "context_size is 0; it must be a whole number of 1 or more"),
        ("Lazy", "lazy layers; give the sizes"),
        ("Bufferless", "no tensor to keep .* self.register_buffer"),
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Raises", r"\(n_embd=4, block_size=8\): forward must take token ids \(2, 8\), in"
                   r" training, and fails: \S+contract.py:\d+: RuntimeError: no such kernel$"),
        ("Exits", "contract.py:.*: SystemExit: 3"),
        ("NoForward", "forward must take .*: TypeError: 'NoneType' object is not callable"),
        ("Unbuilt", r"its class must take .* and fails: \S+contract.py:\d+: KeyError: 'width'"),
        ("Constructor", r"must take \(config, vocab_size, block_size, generator\), and fails: "
                        "TypeError: .* takes 2 positional arguments but 5 were given"),
        ("Abstract", "TypeError: Can't instantiate abstract class"),
        ("NoBackward", "its backward pass fails, in training: .*ZeroDivisionError"),
        ("Cached", "in training after an evaluation, and fails: .*Inference tensors"),
        ("OtherVocabulary", "contract.py:.* IndexError: index 10 is out of bounds"),
        ("NoFit", r"fit must take token ids \(64,\), and fails: .*one_hot"),
    ],
)  # fmt: skip
def test_what_a_model_raises_is_said_in_a_line(
    name: str, message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UserError, match=f"^contract:{name} .*{message}") as refused:
        check_models([make_trial(f"contract:{name}")], 11)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Detached", r"its logits have no gradient, .* without \.detach\(\)"),
        ("Elsewhere", "depend on no parameter of it"),
        ("Sparse", "the gradient of table.weight is sparse"),
        ("Steep", "the gradient of embed is not finite at the start"),
    ],
)
def test_what_cannot_be_trained_by_gradients_is_refused(
    name: str, message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UserError, match=f"^contract:{name} .*{message}"):
        check_models([make_trial(f"contract:{name}")], 11)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nan", "logits that are not finite, 176 of 176, such as nan"),
        ("Infinite", "logits that are not finite, .* such as -inf"),
        ("Unsmoothed", "logits that are not finite, .* such as -inf"),
        ("RandomAlways", "two evaluations of the same text differ"),
        ("Remembers", "two evaluations of the same text differ"),
    ],
)
def test_what_no_evaluation_can_use_is_called_by_its_name(
    name: str, message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_models([make_trial(f"contract:{name}")], 11)
    assert "future" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("WholeBlock", {}, r"ids \(1, 5\), in the last window of an evaluation"),
        (
            "WholeBlock",
            {"evaluation": "sampled"},
            r"in sampling, .* shape \(1, 8, 11\) for .* \(1, 1\)",
        ),
        ("LongBlock", {"evaluation": "sampled"}, r"ids \(1, 4\), in sampling"),
        ("OnePair", {}, r"ids \(1, 5\), in the last window .*AssertionError: one token"),
        ("LongMemory", {}, r"ids \(1, 9\), in sampling"),
        ("LongMemory", {"block_size": 64}, r"ids \(1, 100\), in sampling"),
    ],
)
def test_a_model_must_take_every_length_that_it_will_be_given(
    name: str, settings: dict[str, object], message: str, make_trial: MakeTrial
) -> None:
    with pytest.raises(UserError, match=message):
        check_models([make_trial(f"contract:{name}", **settings)], 11, split_sizes=(801, 102))


def test_a_model_need_take_no_other_length(make_trial: MakeTrial) -> None:
    trial = make_trial("contract:OnePair", evaluation="sampled")
    assert check_models([trial], 11, split_sizes=(801, 102)) == []
    assert check_models([make_trial("contract:OnePair")], 11, split_sizes=(801, 81)) == []


@pytest.mark.parametrize("name", ["Cuda", "Large"])
def test_what_another_machine_may_do_is_warned_about(
    name: str, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (warning,) = check_models([make_trial(f"contract:{name}")], 11)
    assert warning.startswith(f"contract:{name}: it cannot be tried on this machine: ")


def test_an_error_of_a_gpu_is_one_where_there_is_a_gpu(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="Found no NVIDIA driver"):
        check_models([make_trial("contract:Cuda")], 11)


def test_a_model_that_is_too_large_here_is_not_tried(make_trial: MakeTrial) -> None:
    trial = make_trial("contract:Raises")
    assert check_models([trial], 11, fits=lambda trial: False) == []


def test_every_configuration_is_tried(make_trial: MakeTrial) -> None:
    trials = [make_trial("contract:WideFails", n_embd=width) for width in (4, 5, 6)]
    with pytest.raises(UserError, match=r"n_embd=6, .*AssertionError: too wide"):
        check_models(trials, 11)
    (warning,) = check_models(trials, 11, may_fail=True)
    assert warning.startswith("contract:WideFails: some of its configurations will fail: ")
    with pytest.raises(UserError, match=r"n_embd=6, .*AssertionError: too wide"):
        check_models(trials[-1:], 11, may_fail=True)
    with pytest.raises(UserError, match="sees the future"):
        check_models([make_trial("contract:Future")], 11, may_fail=True)


def test_what_it_prints_is_dropped(
    make_trial: MakeTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_models([make_trial("contract:Prints")], 11) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["contract:Good", "contract:Fitted", "bigram"])
def test_all_others_may_train(name: str, make_trial: MakeTrial) -> None:
    trials = [make_trial(name), make_trial(name, block_size=1), make_trial(name, block_size=40)]
    assert check_models(trials, 11, split_sizes=(801, 103)) == []
