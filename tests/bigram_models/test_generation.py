"""Texts of several models at once are those of each model alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bigram_models import BigramTable, LanguageModel, attention_generation
from bigram_models.attention import AttentionBigram
from bigram_models.generation import (
    CPU_BYTES,
    ForwardPredictor,
    generate_together,
    quicker_device,
)
from bigram_models.positions import ENCODINGS
from tests.bigram_models.test_stacked import BLOCK, STACKS, Scaled, V, ids, members
from tests.model_cases import every_model

every_stack = pytest.mark.parametrize(("variant", "settings"), STACKS.values(), ids=STACKS)
Settings = list[dict[str, Any]]


def attention(*encodings: str) -> Sequence[LanguageModel]:
    return members("attention", [{"pe_type": name, "n_embd": 4} for name in encodings])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def together(models: Sequence[LanguageModel], prompt_MBT: Tensor, length: int) -> Tensor:
    chance = [seeded(seed) for seed in range(len(models))]
    return generate_together(models, prompt_MBT, length, chance)


@torch.no_grad()
def assert_predicts(models: Sequence[LanguageModel], rows: int = 2) -> None:
    """The predictors give the last logits of the models' windows, as a text grows."""
    text_MBT, context_size = ids(len(models), rows, 5 * BLOCK), models[0].context_size
    predictors = type(models[0]).predictors(models)
    assert sorted(number for numbers, _ in predictors for number in numbers) == [
        *range(len(models))
    ]
    for numbers, predictor in predictors:
        for end in range(1, text_MBT.shape[-1] + 1):
            window_MBT = text_MBT[list(numbers), :, max(0, end - context_size) : end]
            expected = [models[i](own)[:, -1] for i, own in zip(numbers, window_MBT, strict=True)]
            torch.testing.assert_close(predictor(window_MBT), torch.stack(expected))


@every_stack
def test_the_next_logits_are_those_of_each_model(variant: str, settings: Settings) -> None:
    assert_predicts(members(variant, settings))
    assert_predicts(members(variant, settings[:1]))


@every_stack
def test_a_text_is_the_same_alone_and_beside_others(variant: str, settings: Settings) -> None:
    models, prompt = members(variant, settings), ids(len(settings), 2, 3)
    texts = together(models, prompt, 40)
    for seed, (model, own, text) in enumerate(zip(models, prompt, texts, strict=True)):
        assert torch.equal(model.generate(own, 40, seeded(seed)), text)
        assert not torch.equal(model.generate(own, 40, seeded(9)), text)


@every_stack
def test_a_model_stays_as_it_is(variant: str, settings: Settings) -> None:
    models, untouched = members(variant, settings), members(variant, settings)
    together(models, ids(len(settings), 1, 1), 20)
    for model, before in zip(models, untouched, strict=True):
        for (name, value), (_, expected) in zip(
            model.state_dict().items(), before.state_dict().items(), strict=True
        ):
            assert torch.equal(value, expected), name
        assert all(parameter.requires_grad for parameter in model.parameters())


@every_model
@pytest.mark.parametrize("length", [1, BLOCK])
def test_next_logits_are_the_last_ones(variant: str, settings: dict[str, Any], length: int) -> None:
    (model,) = members(variant, [settings])
    ids_BT = ids(3, length)
    torch.testing.assert_close(model.next_logits(ids_BT), model(ids_BT)[:, -1])


def test_tables_of_pairs_are_for_small_vocabularies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_generation, "MAX_V", V - 1)
    assert_predicts(attention("randn", "sinpe", "rope", "randn"))
    models = attention("randn", "randn")
    ((_, predictor),) = type(models[0]).predictors(models)
    assert isinstance(predictor, ForwardPredictor)


def test_an_encoding_without_a_predictor_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "scaled", Scaled)
    models = attention("scaled", "rope", "scaled", "sinpe")
    assert len(type(models[0]).predictors(models)) == 3
    assert_predicts(models)


def test_many_texts_of_a_table_follow_it() -> None:
    """Chi-square of each model's transitions against its own table."""
    models, length = members("bigram", [{}] * 3), 4_000
    texts = together(models, ids(3, 5, 1), length)
    for model, text_BT in zip(models, texts, strict=True):
        pairs = (text_BT[:, :-1] * V + text_BT[:, 1:]).flatten()
        observed_VV = torch.bincount(pairs, minlength=V * V).view(V, V)
        assert isinstance(model, BigramTable)
        expected_VV = observed_VV.sum(1, keepdim=True) * model.table().detach().softmax(-1)
        assert float(expected_VV.min()) > 5
        chance = float(((observed_VV - expected_VV) ** 2 / expected_VV).sum())
        freedom = V * (V - 1)
        assert chance < freedom + 4 * math.sqrt(2 * freedom) + 4  # about p = 1e-4


@pytest.mark.parametrize("uniform", [None, 0.0, 1 - 2**-24])  # drawn, the least, the largest
def test_what_cannot_come_next_is_never_drawn(
    uniform: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if uniform is not None:
        monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, uniform))
    (model,) = members("bigram", [{}])
    with torch.no_grad():
        model.get_parameter("logits_VV").fill_(-torch.inf)[:, [1, 4]] = 0.0
    text = model.generate(ids(200, 1), 50, seeded(0))[:, 1:]
    expected = {None: [1, 4], 0.0: [1]}.get(uniform, [4])
    assert sorted(text.unique().tolist()) == expected


def test_rounding_never_draws_what_cannot_come_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 1 - 2**-24))
    models = members("bigram", [{}] * 30)  # some of whose probabilities add up to less than one
    with torch.no_grad():
        for model in models:
            model.get_parameter("logits_VV")[:, -1] = -torch.inf
    assert not (together(models, ids(30, V, 1), 1)[..., 1] == V - 1).any()


def test_logits_that_are_not_numbers_draw_some_token() -> None:
    models = members("bigram", [{}] * 2)
    with torch.no_grad():
        models[0].get_parameter("logits_VV").fill_(torch.nan)
    text = together(models, ids(2, 1, 1), 20)
    assert 0 <= int(text.min()) <= int(text.max()) < V
    assert torch.equal(text[1], models[1].generate(ids(2, 1, 1)[1], 20, seeded(1)))


class Sharper(AttentionBigram):
    """Attention with other logits."""

    def forward(self, ids_BT: Tensor) -> Tensor:
        return 3 * super().forward(ids_BT)


class SharperTable(BigramTable):
    """A table with other logits, of which `table` knows nothing."""

    def forward(self, ids_BT: Tensor) -> Tensor:
        return 3 * super().forward(ids_BT)


def test_a_subclass_predicts_with_its_own_forward_pass() -> None:
    config = Sharper.Config(pe_type="rope", n_embd=4)
    assert_predicts([Sharper(config, V, BLOCK, seeded(seed)) for seed in range(2)])
    table = SharperTable.Config()
    assert_predicts([SharperTable(table, V, BLOCK, seeded(seed)) for seed in range(2)])


class Louder(LanguageModel):
    """A bigram table whose logits depend on what is no tensor."""

    def __init__(self, inner: BigramTable, factor: float) -> None:
        super().__init__(V, context_size=1)
        self.inner, self.factor = inner, factor

    def forward(self, ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.inner(ids_BT) * self.factor
        return logits_BTV


def test_models_that_differ_in_more_than_tensors_are_not_run_as_one() -> None:
    tables = members("bigram", [{}] * 2)
    equal, other = (
        [Louder(table, factor) for table, factor in zip(tables, factors, strict=True)]  # type: ignore[arg-type]
        for factors in ((2.0, 2.0), (2.0, 3.0))
    )
    prompt = ids(2, 1, 1)
    for seed, (model, text) in enumerate(zip(equal, together(equal, prompt, 20), strict=True)):
        assert torch.equal(model.generate(prompt[seed], 20, seeded(seed)), text)
    with pytest.raises(ValueError, match="other logits alone"):
        together(other, prompt, 20)


def test_few_values_are_computed_on_the_cpu() -> None:
    models = [model.to("meta") for model in members("bigram", [{}] * 2)]
    assert quicker_device(models) == torch.device("cpu")
    many = models * (CPU_BYTES // (2 * 4 * V * V) + 1)
    assert quicker_device(many) == torch.device("meta")
    assert quicker_device(many[:-2]) == torch.device("cpu")
