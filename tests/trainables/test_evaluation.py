"""Losses against a sum over characters, one after another."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigram_models import BigramTable
from tests.model_cases import every_trained_model
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler, stream
from trainables.training import evaluation
from trainables.training.evaluation import (
    are_tables,
    block_count,
    block_losses,
    exact_loss,
    next_token_loss,
    sampled_loss,
    table_losses,
)
from trainables.training.loop import Splits, initial_state, train

MakeTrial = Callable[..., TrialConfig]
V = 11


def text_of(length: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (length,), generator=stream(seed, "text"), dtype=torch.int32)


def naive_loss(model: torch.nn.Module, tokens: Tensor, block_size: int) -> float:
    """The mean over tokens of -log p, each from what its window shows before it."""
    nats = []
    for target in range(1, len(tokens)):
        first = (target - 1) // block_size * block_size
        context = tokens[None, first:target].long()
        log_p = model(context)[0, -1].detach().double().log_softmax(-1)
        nats.append(-float(log_p[int(tokens[target])]))
    return math.fsum(nats) / len(nats)


@every_trained_model
@pytest.mark.parametrize("length", [2, 6, 7, 90])
def test_exact_loss_is_the_mean_over_every_token(
    variant: str,
    settings: dict[str, object],
    length: int,
    make_trial: MakeTrial,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_TOKENS", 32)  # several batches and a remainder
    model = initial_state(make_trial(variant, block_size=6, **settings), V).model
    tokens = text_of(length)
    assert exact_loss(model, tokens, 6) == pytest.approx(naive_loss(model, tokens, 6), rel=1e-5)


@pytest.mark.parametrize("variant", ["bigram", "factorized"])
@pytest.mark.parametrize("length", [2, 7, 3_000])
def test_the_loss_of_tables_from_counts_is_that_of_the_windows(
    variant: str, length: int, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [initial_state(make_trial(variant, seed=seed), V).model for seed in range(3)]
    tokens = text_of(length)
    assert are_tables(models)
    together = table_losses(models, tokens)
    alone = [exact_loss(model, tokens, 6) for model in models]
    monkeypatch.setattr(evaluation, "DENSE_CELLS", V * V - 1)  # then nothing is counted
    assert not are_tables(models[:1])
    plain = [exact_loss(model, tokens, 6) for model in models]
    assert together == pytest.approx(plain, abs=1e-6)
    assert alone == pytest.approx(plain, abs=1e-6)
    assert len({round(loss, 4) for loss in plain}) == 3


def test_a_table_that_gives_a_token_no_chance_counts_only_the_pairs_of_the_text() -> None:
    model = BigramTable(BigramTable.Config(), 2, 8, torch.Generator())
    with torch.no_grad():
        model.logits_VV.copy_(torch.tensor([[0.0, -math.inf], [0.0, 0.0]]))
    assert exact_loss(model, torch.tensor([1, 0, 0]), 8) == pytest.approx(math.log(2) / 2)
    assert exact_loss(model, torch.tensor([0, 1]), 8) == math.inf


class Cubed(BigramTable):
    """Computes other logits than the table that it inherits."""

    def forward(self, ids_BT: Tensor) -> Tensor:
        return super().forward(ids_BT) ** 3


class Renamed(BigramTable):
    """Computes what the table says."""


def test_a_class_with_its_own_forward_is_evaluated_by_it() -> None:
    own = [
        kind(kind.Config(), V, 8, torch.Generator().manual_seed(1))
        for kind in (Cubed, Renamed, BigramTable)
    ]
    tokens = text_of(500)
    assert [are_tables([model]) for model in own] == [False, True, True]
    assert not are_tables(own)
    assert exact_loss(own[0], tokens, 8) == pytest.approx(naive_loss(own[0], tokens, 8), rel=1e-5)


def test_next_token_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0]]])
    targets = torch.tensor([[0, 1]])
    assert float(next_token_loss(logits, targets)) == pytest.approx((math.log(4) + math.log(2)) / 2)
    total = next_token_loss(logits, targets, reduction="sum")
    assert float(total) == pytest.approx(math.log(8))


def test_sampled_loss_comes_near_the_exact_one(make_trial: MakeTrial) -> None:
    """Within 4 standard errors; the loss of a bigram does not depend on the windows' edges."""
    model = initial_state(make_trial("bigram"), V).model
    tokens = text_of(2_000)
    exact = exact_loss(model, tokens, 8)
    sampled = sampled_loss(model, WindowSampler(tokens, 32, 8), 300, stream(0, "evaluation"))
    deviation = model(tokens[None, :-1].long()).log_softmax(-1).std().item()
    assert sampled == pytest.approx(exact, abs=4 * deviation / math.sqrt(32 * 300))
    assert sampled != exact


@pytest.mark.parametrize("variant", ["factorized", "attention"])
@pytest.mark.parametrize(
    "looking",
    [{"eval_every": 1}, {"eval_every": 7}, {"evaluation": "sampled", "eval_batches": 3}],
    ids=str,
)
def test_how_one_looks_does_not_change_what_is_trained(
    variant: str, looking: dict[str, object], make_trial: MakeTrial
) -> None:
    def weights(**more: object) -> dict[str, Tensor]:
        trial = make_trial(variant, n_embd=4, max_steps=20, batch_size=4, **more)
        state = initial_state(trial, V)
        splits = Splits(text_of(300), text_of(40, seed=1))
        for _ in train(state, splits, trial.training, trial.seed):
            pass
        return state.model.state_dict()

    expected, looked = weights(eval_every=20), weights(**looking)
    assert all(torch.equal(expected[name], looked[name]) for name in expected)


def test_sampled_losses_do_not_depend_on_how_often_one_looks(make_trial: MakeTrial) -> None:
    def last(eval_every: int) -> tuple[float, float]:
        trial = make_trial(
            max_steps=12, eval_every=eval_every, evaluation="sampled", eval_batches=2, batch_size=4
        )
        splits = Splits(text_of(300), text_of(40, seed=1))
        *_, end = train(initial_state(trial, V), splits, trial.training, trial.seed)
        return end.train_loss, end.val_loss

    assert last(3) == last(4) == last(12)


@every_trained_model
@pytest.mark.parametrize("length", [2, 90, 3_000])
def test_losses_by_block_are_those_of_the_split(
    variant: str,
    settings: dict[str, object],
    length: int,
    make_trial: MakeTrial,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_TOKENS", 100)  # which end in the middle of blocks
    model = initial_state(make_trial(variant, block_size=6, **settings), V).model
    tokens = text_of(length)
    counts, losses = block_losses(model, tokens, 6)
    assert len(counts) == len(losses) == max(1, (length - 1) // 256)
    assert sum(counts) == length - 1
    assert max(counts) - min(counts) <= 1
    mean = sum(count * loss for count, loss in zip(counts, losses, strict=True)) / (length - 1)
    assert mean == pytest.approx(exact_loss(model, tokens, 6), rel=1e-5)


def test_a_block_has_the_losses_of_its_own_part_of_the_text(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_TOKENS", 100)
    model = initial_state(make_trial("attention", block_size=7, n_embd=4), V).model
    tokens = text_of(1_100)  # 1,099 predictions in four blocks
    counts, losses = block_losses(model, tokens, 7)
    assert counts == [275, 275, 275, 274]
    before = naive_loss(model, tokens[: 275 + 1], 7) * 275
    both = naive_loss(model, tokens[: 550 + 1], 7) * 550
    assert losses[:2] == pytest.approx([before / 275, (both - before) / 275], rel=1e-5)


def test_long_splits_have_a_few_hundred_blocks() -> None:
    assert [block_count(n) for n in (2, 512, 513, 111_540, 10**8)] == [1, 1, 2, 400, 400]
