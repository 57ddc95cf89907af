"""Logits and gradients against the definitions, in float64 and by plain loops."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from bigram_models import AttentionBigram, BigramTable, FactorizedBigram, LanguageModel
from bigram_models.positions import ENCODINGS
from bigram_models.stacked import StackedModel
from bigram_models.table import StackedTables, has_table
from tests.model_cases import accepts, every_encoding

V_BELOW_D, V_ABOVE_D = (5, 12), (23, 6)
WIDTHS = pytest.mark.parametrize(("vocab_size", "n_embd"), [V_BELOW_D, V_ABOVE_D])
BLOCK = 7
SIZES = pytest.mark.parametrize(("rows", "length"), [(3, 1), (3, 4), (3, BLOCK), (40, BLOCK)])

Weights = dict[str, Tensor]
Definition = Callable[[Weights, Tensor], Tensor]
Place = Callable[[Tensor, int], Tensor]  # x (D,) with its position


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids_of(vocab_size: int, length: int, rows: int = 3) -> Tensor:
    return torch.randint(vocab_size, (rows, length), generator=seeded(1))


def bigram(w: Weights, ids: Tensor) -> Tensor:
    return torch.stack([torch.stack([w["logits_VV"][id] for id in row]) for row in ids])


def linear(w: Weights, x: Tensor) -> Tensor:
    return torch.stack([(row * x).sum() for row in w["head.weight"]]) + w["head.bias"]


def factorized(w: Weights, ids: Tensor) -> Tensor:
    return torch.stack([torch.stack([linear(w, w["embed_VD"][id]) for id in row]) for row in ids])


def rotated(x: Tensor, position: int) -> Tensor:
    channels: list[Tensor] = []
    for i in range(len(x) // 2):
        angle = position * 10_000 ** (-2 * i / len(x))
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = x[2 * i], x[2 * i + 1]
        channels += [a * cos - b * sin, a * sin + b * cos]
    return torch.stack(channels)


def sinusoids(position: int, width: int) -> Tensor:
    values = []
    for channel in range(width):
        angle = position * 10_000 ** (-2 * (channel // 2) / width)
        values.append(math.cos(angle) if channel % 2 else math.sin(angle))
    return torch.tensor(values, dtype=torch.float64)


def attention(place: Place) -> Definition:
    def logits(w: Weights, ids: Tensor) -> Tensor:
        rows = []
        for row in ids:
            xs = [place(w["embed_VD"][id], position) for position, id in enumerate(row)]
            mixed = []
            for t, query in enumerate(xs):
                score = torch.stack([query @ key for key in xs[: t + 1]]) / math.sqrt(len(query))
                weight = score.exp() / score.exp().sum()
                mixed.append(sum(a * x for a, x in zip(weight, xs[: t + 1], strict=True)))
            rows.append(torch.stack([linear(w, x) for x in mixed]))
        return torch.stack(rows)

    return logits


def assert_same(model: LanguageModel, define: Definition, ids: Tensor) -> None:
    """Equal logits, and equal gradients of a loss that weighs every logit differently."""
    parameters = dict(model.named_parameters())
    reference = {
        name: value.detach().double().requires_grad_() for name, value in parameters.items()
    }
    logits, expected = model(ids), define(reference, ids)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(logits.shape, generator=seeded(2), dtype=torch.float64)
    (logits.double().log_softmax(-1) * weight).sum().backward()
    (expected.log_softmax(-1) * weight).sum().backward()
    for name, value in parameters.items():
        assert value.grad is not None, name
        torch.testing.assert_close(
            value.grad.double(), reference[name].grad, rtol=1e-4, atol=1e-4, msg=f"gradient: {name}"
        )


def randn_table(model: LanguageModel) -> Tensor:
    """The one thing that a model keeps besides what it trains."""
    kept = model.state_dict().keys() - dict(model.named_parameters()).keys()
    (name,) = kept
    return model.state_dict()[name]


def make_attention(vocab_size: int, **settings: object) -> AttentionBigram:
    config = AttentionBigram.Config(**settings)  # type: ignore[arg-type]
    return AttentionBigram(config, vocab_size, BLOCK, seeded())


def test_bigram_looks_its_logits_up() -> None:
    model = BigramTable(BigramTable.Config(), 11, BLOCK, seeded())
    assert_same(model, bigram, ids_of(11, BLOCK))


@WIDTHS
def test_factorized_is_an_embedding_and_a_linear_map(vocab_size: int, n_embd: int) -> None:
    config = FactorizedBigram.Config(n_embd=n_embd)
    model = FactorizedBigram(config, vocab_size, BLOCK, seeded())
    assert_same(model, factorized, ids_of(vocab_size, BLOCK))


PLACES: Mapping[str, Callable[[AttentionBigram], Place]] = {
    "rope": lambda model: rotated,
    "sinpe": lambda model: lambda x, position: x + sinusoids(position, len(x)),
    "randn": lambda model: lambda x, position: x + randn_table(model).double()[position],
}


def test_every_encoding_has_a_definition() -> None:
    assert PLACES.keys() == ENCODINGS.keys()


@pytest.mark.parametrize(
    ("pe_type", "vocab_size", "n_embd"),
    [
        (pe_type, vocab_size, n_embd)
        for pe_type in ENCODINGS
        for vocab_size, n_embd in (V_BELOW_D, V_ABOVE_D, (23, 5))
        if accepts(pe_type, n_embd)
    ],
)
@SIZES
def test_attention_follows_the_definition_of_its_encoding(
    pe_type: str, vocab_size: int, n_embd: int, rows: int, length: int
) -> None:
    model = make_attention(vocab_size, pe_type=pe_type, n_embd=n_embd)
    define = attention(PLACES[pe_type](model))
    assert_same(model, define, ids_of(vocab_size, length, rows))


def test_the_randn_table_is_0_02_times_normal() -> None:
    config = AttentionBigram.Config(pe_type="randn", n_embd=100)
    table = randn_table(AttentionBigram(config, 3, 200, seeded()))
    assert table.shape == (200, 100)
    assert float(table.std()) == pytest.approx(0.02, rel=0.02)
    assert float(table.mean()) == pytest.approx(0, abs=5e-4)


@every_encoding
def test_positions_are_not_trained(pe_type: str) -> None:
    model = make_attention(9, pe_type=pe_type, n_embd=4)
    assert sorted(p.shape for p in model.parameters()) == [(9,), (9, 4), (9, 4)]


def test_equal_seeds_differ_by_pe_type_in_positions_only() -> None:
    models = [make_attention(9, pe_type=pe, n_embd=4) for pe in ENCODINGS]
    for others in zip(*(model.named_parameters() for model in models), strict=True):
        names, values = zip(*others, strict=True)
        assert len(set(names)) == 1
        assert all(torch.equal(values[0], value) for value in values)


def test_initial_values_have_the_distributions_of_the_design() -> None:
    """Embeddings N(0, 1); the head uniform up to 1 / sqrt(D), as `nn.Linear` starts."""
    config = FactorizedBigram.Config(n_embd=64)
    weights = FactorizedBigram(config, 2_000, BLOCK, seeded()).state_dict()
    embed, head, bias = weights["embed_VD"], weights["head.weight"], weights["head.bias"]
    assert float(embed.mean()) == pytest.approx(0, abs=0.01)
    assert float(embed.std()) == pytest.approx(1, rel=0.01)
    for value in (head, bias):
        assert float(value.abs().max()) == pytest.approx(1 / 8, rel=0.01)
        assert float(value.std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)


def test_an_untrained_table_scores_ln_v_plus_half_the_variance() -> None:
    """E[logsumexp of V values N(0, 1)] is about ln V + 1/2, less Var(exp) / (2 V E[exp]^2)."""
    V = 1_000
    model = BigramTable(BigramTable.Config(), V, BLOCK, seeded())
    loss = -model(torch.arange(V)[None]).log_softmax(-1).mean()
    assert float(loss.detach()) == pytest.approx(
        math.log(V) + 0.5 - (math.e - 1) / (2 * V), abs=5e-3
    )


def test_an_odd_width_is_refused_for_rope_only() -> None:
    with pytest.raises(ValueError, match=r"n_embd=5 is odd.*even"):
        AttentionBigram.Config(pe_type="rope", n_embd=5)
    AttentionBigram.Config(pe_type="sinpe", n_embd=5)


@pytest.mark.parametrize("config", [AttentionBigram.Config, FactorizedBigram.Config])
@pytest.mark.parametrize("n_embd", [0, -2])
def test_a_width_below_one_is_refused(config: Callable[..., object], n_embd: int) -> None:
    with pytest.raises(ValueError, match=f"n_embd must be at least 1, not {n_embd}"):
        config(n_embd=n_embd)


def test_a_table_is_used_only_where_it_holds_all_logits() -> None:
    class Louder(BigramTable):
        def forward(self, ids_BT: Tensor) -> Tensor:
            return 2 * super().forward(ids_BT)

    class Halved(Louder):
        def forward(self, ids_BT: Tensor) -> Tensor:
            return super().forward(ids_BT) / 2

        @staticmethod
        def table_of(parameters: Mapping[str, Tensor]) -> Tensor:
            return parameters["logits_VV"]

    chance = torch.Generator().manual_seed(0)
    made = [
        kind(kind.Config(), 5, 8, chance)
        for kind in (BigramTable, FactorizedBigram, AttentionBigram, Louder, Halved)
    ]
    assert [has_table(model) for model in made] == [True, True, False, False, True]
    assert type(Louder.stacked([made[3], made[3]])) is StackedModel
    assert type(BigramTable.stacked([made[0], made[0]])) is StackedTables
