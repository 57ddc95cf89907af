"""The bytes of packs by a formula, against those that real stacks allocate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from sweeps.planning import gpu_memory
from sweeps.planning.gpu_memory import GpuMemory, MemberMemory, member_memory
from tests.live_memory import LiveMemory
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus, tokenise
from trainables.data.verse import write_play
from trainables.training import stack
from trainables.training.loop import Splits, initial_state
from trainables.training.stack import Member, Stack

MakeTrial = Callable[..., TrialConfig]

MEMBERS = 6
TOKENS = 8_192  # of an evaluation
STEPS = 3

TINY = {"variant": "own_gru:TinyGRU", "n_embd": 16}
OWN_GRU = """
from dataclasses import dataclass
import torch
from bigram_models import LanguageModel

class TinyGRU(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        n_embd: int = 16

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.embed = torch.nn.Embedding(vocab_size, config.n_embd)
        self.gru = torch.nn.GRU(config.n_embd, config.n_embd, batch_first=True)
        self.head = torch.nn.Linear(config.n_embd, vocab_size)

    def forward(self, ids_BT):
        return self.head(self.gru(self.embed(ids_BT))[0])
"""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return tokenise("play", write_play(characters=150_000))


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate fewer tokens at once than on a GPU: it takes seconds on a CPU."""
    monkeypatch.setattr(gpu_memory, "EVALUATION_TOKENS_GPU", TOKENS)
    monkeypatch.setattr(stack, "evaluation_tokens", lambda _: TOKENS)


def peak_bytes(trials: Sequence[TrialConfig], corpus: Corpus) -> int:
    """The most bytes of a stack of trials that takes some steps and evaluates."""
    splits = Splits.of(corpus, torch.device("cpu"))
    splits = Splits(splits.train[: 4 * TOKENS], splits.validation[:TOKENS])
    with LiveMemory() as live:
        members = [Member(trial, initial_state(trial, corpus.vocab_size)) for trial in trials]
        live.peak_bytes = live.bytes  # what making the models takes is not part of a pack
        training = Stack(members, splits)
        while training.members:
            training.advance()
    return live.peak_bytes


def trials_of(settings: dict[str, object], pe_types: Sequence[str], make: MakeTrial) -> list[TrialConfig]:
    steps = {"max_steps": STEPS, "eval_every": STEPS, "batch_size": 64, **settings}
    variant = str(steps.pop("variant"))
    kinds = [{"pe_type": name} for name in pe_types] or [{}]
    return [
        make(variant, seed=number, **steps, **kinds[number % len(kinds)])
        for number in range(MEMBERS)
    ]


ATTENTION = {"variant": "attention"}
THREE = ("rope", "sinpe", "randn")


@pytest.mark.parametrize(
    ("settings", "pe_types"),
    [
        ({"variant": "bigram", "block_size": 8}, ()),
        ({"variant": "bigram", "block_size": 64}, ()),
        ({"variant": "factorized", "n_embd": 384, "block_size": 8}, ()),
        ({"variant": "factorized", "n_embd": 8, "block_size": 32}, ()),
        (ATTENTION | {"n_embd": 64, "block_size": 8}, THREE),
        (ATTENTION | {"n_embd": 64, "block_size": 64}, THREE),
        (ATTENTION | {"n_embd": 256, "block_size": 8}, THREE),
        (ATTENTION | {"n_embd": 256, "block_size": 32}, THREE),
        (ATTENTION | {"n_embd": 8, "block_size": 4}, THREE),
        (ATTENTION | {"n_embd": 16, "block_size": 128}, THREE),
        (ATTENTION | {"n_embd": 128, "block_size": 16}, ("rope",)),
        (ATTENTION | {"n_embd": 64, "block_size": 16}, ("sinpe",)),
        (ATTENTION | {"n_embd": 7, "block_size": 16}, ("randn",)),  # odd: without the formula
    ],
)  # fmt: skip
def test_a_pack_takes_no_more_than_the_formula_says_and_at_least_half(
    settings: dict[str, object], pe_types: Sequence[str], make_trial: MakeTrial, corpus: Corpus
) -> None:
    trials = trials_of(settings, pe_types, make_trial)
    memory = member_memory(trials[0], corpus)
    assert memory is not None
    taken_bytes = peak_bytes(trials, corpus)
    ratio = memory.live_bytes(MEMBERS) / taken_bytes
    print(settings, pe_types, "%.2f" % ratio, taken_bytes / 1e6, memory)
    assert 1 <= ratio <= 2
