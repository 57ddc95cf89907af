"""What holds for every registered variant."""

import math
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bigram_models import VARIANTS, FittedModel, LanguageModel
from tests.model_cases import SETTINGS

V, BLOCK = 7, 6


class Case(NamedTuple):
    variant: str
    settings: dict[str, Any]

    def build(self, seed: int = 0) -> LanguageModel:
        """A model as its constructor leaves it."""
        make: Any = VARIANTS[self.variant]
        generator = torch.Generator().manual_seed(seed)
        model: LanguageModel = make(make.Config(**self.settings), V, BLOCK, generator)
        return model

    def ready(self) -> LanguageModel:
        """A model that has been fitted if it must be."""
        model = self.build()
        if isinstance(model, FittedModel):
            model.fit(random_ids(40, seed=3)[0])
        return model

    def __str__(self) -> str:
        return "-".join([self.variant, *map(str, self.settings.values())])


CASES = [
    *[Case(variant, settings) for variant in VARIANTS for settings in SETTINGS[variant]],
    Case("count", {"smoothing": 0.0}),
]
every_variant = pytest.mark.parametrize("case", CASES, ids=str)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_ids(length: int, seed: int = 1, rows: int = 1) -> Tensor:
    return torch.randint(V, (rows, length), generator=seeded(seed))


def test_every_registered_variant_is_a_case() -> None:
    assert set(SETTINGS) == set(VARIANTS)


@every_variant
@pytest.mark.parametrize("length", [1, 3, BLOCK])
def test_logits_are_float32_distributions_over_the_vocabulary(case: Case, length: int) -> None:
    logits = case.ready()(random_ids(length, rows=3))
    assert logits.shape == (3, length, V)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.softmax(-1).sum(-1), torch.ones(3, length))


@every_variant
@pytest.mark.parametrize("changed", range(1, BLOCK))
@pytest.mark.parametrize("rows", [1, 30])
def test_no_variant_sees_the_future(case: Case, changed: int, rows: int) -> None:
    model, ids = case.ready(), random_ids(BLOCK, rows=rows)
    other = ids.clone()
    other[:, changed:] = (other[:, changed:] + 1) % V
    before, after = model(ids), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed:], after[:, changed:])


@every_variant
def test_a_shorter_text_gets_the_logits_of_its_beginning(case: Case) -> None:
    model, ids = case.ready(), random_ids(BLOCK, rows=3)
    torch.testing.assert_close(model(ids[:, :4]), model(ids)[:, :4])


@every_variant
def test_rows_of_a_batch_do_not_meet(case: Case) -> None:
    model, ids = case.ready(), random_ids(BLOCK, rows=3)
    torch.testing.assert_close(torch.cat([model(row[None]) for row in ids]), model(ids))


@every_variant
def test_initial_values_come_from_the_generator_alone(case: Case) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = case.build(seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = case.build(seed=5).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@every_variant
def test_other_seeds_give_other_parameters(case: Case) -> None:
    one, two = dict(case.build(seed=5).named_parameters()), dict(case.build(6).named_parameters())
    assert not any(torch.equal(one[name], two[name]) for name in one)


@every_variant
def test_weights_come_back_from_safetensors(case: Case) -> None:
    model, ids = case.ready(), random_ids(BLOCK, rows=3)
    content = safetensors.torch.save(model.state_dict())
    restored = case.build(seed=99)
    restored.load_state_dict(safetensors.torch.load(content))
    assert torch.equal(restored(ids), model(ids))


@every_variant
@pytest.mark.parametrize("prompt_length", [1, BLOCK, BLOCK + 5])
@pytest.mark.parametrize("length", [0, 1, 20])
def test_generation_continues_each_prompt(case: Case, prompt_length: int, length: int) -> None:
    prompt = random_ids(prompt_length, rows=3)
    text = case.ready().generate(prompt, length, seeded(0))
    assert text.shape == (3, prompt_length + length)
    assert text.dtype == torch.int64
    assert torch.equal(text[:, :prompt_length], prompt)
    assert 0 <= int(text.min()) <= int(text.max()) < V


@every_variant
def test_generation_sees_the_last_block_of_a_long_prompt(case: Case) -> None:
    model, prompt = case.ready(), random_ids(BLOCK + 9, rows=3)
    whole = model.generate(prompt, 15, seeded(0))
    cropped = model.generate(prompt[:, -BLOCK:], 15, seeded(0))
    assert torch.equal(whole[:, -15:], cropped[:, -15:])


@every_variant
def test_equal_generators_write_equal_text(case: Case) -> None:
    model, prompt = case.ready(), random_ids(2, rows=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = model.generate(prompt, 30, seeded(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(one, model.generate(prompt, 30, seeded(0)))
    assert not torch.equal(one, model.generate(prompt, 30, seeded(1)))


@every_variant
def test_an_empty_prompt_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        case.ready().generate(torch.empty(1, 0, dtype=torch.int64), 5, seeded(0))


@every_variant
def test_generated_pairs_follow_the_distribution_of_the_model(case: Case) -> None:
    """Chi-square of the next two tokens, whose law is p(a | prompt) p(b | prompt a)."""
    draws, model, prompt = 20_000, case.ready(), random_ids(3)
    first = model(prompt)[0, -1].softmax(-1)
    extended = torch.cat([prompt.expand(V, -1), torch.arange(V)[:, None]], dim=1)
    second = model(extended)[:, -1].softmax(-1)
    expected = (draws * first[:, None] * second).flatten().double().detach()
    pairs = model.generate(prompt.expand(draws, -1), 2, seeded(0))[:, -2:]
    observed = torch.bincount(pairs[:, 0] * V + pairs[:, 1], minlength=V * V)
    assert not observed[expected == 0].any()
    often = expected >= 5
    pooled_expected = torch.cat([expected[often], expected[~often].sum()[None]])
    pooled_observed = torch.cat([observed[often], observed[~often].sum()[None]])
    chance = ((pooled_observed - pooled_expected) ** 2 / pooled_expected.clamp(min=1e-9)).sum()
    freedom = int(often.sum())
    assert float(chance) < freedom + 4 * math.sqrt(2 * freedom) + 4  # about p = 1e-4
