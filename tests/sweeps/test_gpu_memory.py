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

OWN = """
from dataclasses import dataclass
import torch
from bigram_models import LanguageModel


class Recurrent(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        n_embd: int = 16

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.embed = torch.nn.Embedding(vocab_size, config.n_embd)
        self.inner = torch.nn.GRU(config.n_embd, config.n_embd, batch_first=True)
        self.head = torch.nn.Linear(config.n_embd, vocab_size)

    def forward(self, ids_BT):
        return self.head(self.inner(self.embed(ids_BT))[0])


class Wide(Recurrent):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        D = config.n_embd
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(D, 4 * D), torch.nn.GELU(), torch.nn.Linear(4 * D, D),
            torch.nn.LayerNorm(D),
        )

    def forward(self, ids_BT):
        return self.head(self.inner(self.embed(ids_BT)))


class OnGpu(Wide):
    def forward(self, ids_BT):
        raise RuntimeError("this needs a GPU")
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


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the working directory have models of a user."""
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def trials_of(
    settings: dict[str, object], pe_types: Sequence[str], make: MakeTrial
) -> list[TrialConfig]:
    steps = {"max_steps": STEPS, "eval_every": 1_000, "batch_size": 64, **settings}
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
    assert 1 <= ratio(trials_of(settings, pe_types, make_trial), corpus) <= 2


def ratio(trials: Sequence[TrialConfig], corpus: Corpus) -> float:
    """Return the bytes by the formula, relative to those that are allocated."""
    memory = member_memory(trials[0], corpus)
    assert memory is not None
    return memory.live_bytes(MEMBERS) / peak_bytes(trials, corpus)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["Recurrent", "Wide"])
@pytest.mark.parametrize("block_size", [8, 64])
def test_the_formula_holds_for_models_of_users(
    name: str, block_size: int, make_trial: MakeTrial, corpus: Corpus
) -> None:
    """The one is computed member after member, the other as one."""
    settings = {"variant": f"own_models:{name}", "n_embd": 24, "block_size": block_size}
    assert 1 <= ratio(trials_of(settings, (), make_trial), corpus) <= 4


@pytest.mark.usefixtures("own")
def test_nothing_is_known_of_a_model_that_cannot_be_computed_here(
    make_trial: MakeTrial, corpus: Corpus
) -> None:
    trial = make_trial("own_models:OnGpu")
    assert GpuMemory(corpus).member(trial) is None
    assert GpuMemory(corpus).alone_bytes([trial]) == GpuMemory(corpus).process_bytes


@pytest.mark.usefixtures("own")
def test_a_large_batch_is_computed_in_part(make_trial: MakeTrial, corpus: Corpus) -> None:
    found = [
        member_memory(make_trial("own_models:Wide", block_size=64, batch_size=size), corpus)
        for size in (64, 6_400)
    ]
    small, large = [memory for memory in found if memory]
    assert large.step_bytes == pytest.approx(100 * small.step_bytes, rel=1e-3)
    assert large.token_bytes == small.token_bytes


MEMBER = MemberMemory(
    parameters=1, state_bytes=10, step_bytes=100, token_bytes=2, block_size=TOKENS // 4
)


def test_the_tokens_of_an_evaluation_are_shared_among_the_members() -> None:
    assert [MEMBER.evaluation_bytes(n) for n in (1, 4, 5)] == [2 * TOKENS, 2 * TOKENS, 2.5 * TOKENS]
    assert MEMBER.live_bytes(2) == 2 * 10 + 2 * TOKENS
    assert MEMBER.reserved_bytes(2) == 2 * 10 + 2 * 2 * 100 + 2 * TOKENS
    many = MemberMemory(1, 10, 10 * TOKENS, 2, 1)
    assert many.live_bytes(2) == 2 * 10 + 20 * TOKENS


@pytest.mark.parametrize(
    ("room", "most"),
    [
        (0, 0),
        (2 * TOKENS + 209, 0),
        (2 * TOKENS + 210, 1),
        (2 * TOKENS + 630, 3),
        (2 * TOKENS + 840, 4),
        (2 * TOKENS + 1_050, 4),  # the fifth makes evaluations larger
        (1e9, 50),
    ],
)
def test_the_largest_pack_that_fits(room: float, most: int) -> None:
    assert MEMBER.most(room, 50) == most


def test_a_shape_is_computed_once(
    make_trial: MakeTrial, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def member(trial: TrialConfig, _: Corpus) -> MemberMemory:
        computed.append(trial.flat["n_embd"])
        return MemberMemory(1, 0, trial.flat["n_embd"], 0, 1)

    monkeypatch.setattr(gpu_memory, "member_memory", member)
    memory = GpuMemory(corpus)
    trials = [
        make_trial("attention", n_embd=width, learning_rate=rate, seed=seed)
        for width in (8, 64, 16)
        for rate in (1e-2, 1e-3)
        for seed in (1, 2)
    ]
    assert memory.alone_bytes(trials) == memory.process_bytes + 2 * 64
    assert computed == [8, 64, 16]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
@pytest.mark.parametrize(("width", "block_size"), [(64, 8), (64, 64), (256, 64)])
def test_on_a_gpu_a_pack_takes_no_more_than_the_formula_says(
    width: int, block_size: int, make_trial: MakeTrial, corpus: Corpus
) -> None:
    settings = ATTENTION | {"n_embd": width, "block_size": block_size, "max_steps": 40}
    trials = trials_of(settings, THREE, make_trial)
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before_bytes = torch.cuda.memory_reserved()
    members = [Member(trial, initial_state(trial, corpus.vocab_size, device)) for trial in trials]
    training = Stack(members, Splits.of(corpus, device))
    while training.members:
        training.advance()
    taken_bytes = torch.cuda.max_memory_reserved() - before_bytes
    memory = member_memory(trials[0], corpus)
    assert memory is not None
    # The allocator takes memory in blocks, cuBLAS 32 MiB for each stream: parts of a process.
    blocks_bytes = 192 << 20
    assert memory.reserved_bytes(MEMBERS) + blocks_bytes >= taken_bytes
    assert memory.reserved_bytes(MEMBERS) <= 2 * taken_bytes + blocks_bytes
