"""The statistical bigram against counting by hand."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import bigram_models.count
from bigram_models import CountBigram, conditional_entropy, count_pairs
from trainables.data.corpus import Corpus

LARGE_V = 1_000_000  # a histogram of all pairs would take 8 TB


def fitted(text: list[int], vocab_size: int, smoothing: float) -> CountBigram:
    config = CountBigram.Config(smoothing=smoothing)
    model = CountBigram(config, vocab_size, 8, torch.Generator())
    model.fit(torch.tensor(text, dtype=torch.int32))
    return model


def probabilities(model: CountBigram) -> Tensor:
    rows: Tensor = model(torch.arange(model.vocab_size)[None])[0].exp()
    return rows


def entropy(text: list[int], vocab_size: int) -> float:
    pair_P, count_P = count_pairs(torch.tensor(text), vocab_size)
    return conditional_entropy(pair_P, count_P, vocab_size)


def random_text(vocab_size: int, length: int) -> list[int]:
    """Skewed, so that some pairs are frequent and some tokens never occur."""
    skewed = np.random.default_rng(0).random(length) ** 2 * (vocab_size - 2)
    return [int(value) for value in skewed]


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [
        (0, [[1 / 2, 1 / 2, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]),
        (1, [[2 / 5, 2 / 5, 1 / 5], [2 / 4, 1 / 4, 1 / 4], [1 / 3, 1 / 3, 1 / 3]]),
        (0.5, [[1.5 / 3.5, 1.5 / 3.5, 0.5 / 3.5], [0.6, 0.2, 0.2], [1 / 3, 1 / 3, 1 / 3]]),
    ],
)
def test_aaba_by_hand(smoothing: float, expected: list[list[float]]) -> None:
    """Pairs aa, ab, ba; a third character that never occurs."""
    a, b = 0, 1
    rows = probabilities(fitted([a, a, b, a], 3, smoothing))
    torch.testing.assert_close(rows, torch.tensor(expected))


@pytest.mark.parametrize("smoothing", [0.0, 1e-3, 1.0, 50.0])
@pytest.mark.parametrize("dense", [True, False])
def test_probabilities_are_smoothed_frequencies(
    smoothing: float, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigram_models.count, "DENSE_CELLS", 1 << 30 if dense else 0)
    V, text = 20, random_text(20, 300)
    pairs, firsts = Counter(pairwise(text)), Counter(text[:-1])
    rows = probabilities(fitted(text, V, smoothing))
    for a in range(V):
        total = firsts[a] + smoothing * V
        expected = [(pairs[a, b] + smoothing) / total if total else 1 / V for b in range(V)]
        assert rows[a].tolist() == pytest.approx(expected, rel=1e-5)


def test_sorting_and_histogram_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.tensor(random_text(50, 5_000))
    by_histogram = count_pairs(tokens, 50)
    monkeypatch.setattr(bigram_models.count, "DENSE_CELLS", 0)
    for one, two in zip(by_histogram, count_pairs(tokens, 50), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dense", [True, False])
def test_a_long_text_is_counted_in_pieces(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigram_models.count, "DENSE_CELLS", 1 << 30 if dense else 0)
    tokens = torch.tensor(random_text(5, 400), dtype=torch.int32)
    whole = count_pairs(tokens, 5)
    for at_once in (1, 7, 399, 400):
        monkeypatch.setattr(bigram_models.count, "PAIRS_AT_ONCE", at_once)
        for one, two in zip(whole, count_pairs(tokens, 5), strict=True):
            assert torch.equal(one, two)


def test_a_large_vocabulary_takes_memory_by_pairs_that_occur() -> None:
    text = random_text(50, 5_000) + random_text(LARGE_V, 5_000)
    model = fitted(text, LARGE_V, 1.0)
    assert sum(value.numel() for value in model.state_dict().values()) < LARGE_V + 3 * len(text)
    (a, b), times = Counter(pairwise(text)).most_common(1)[0]
    unseen = LARGE_V - 1
    rows = model(torch.tensor([[a, unseen]]))[0].exp()
    total = Counter(text[:-1])[a] + LARGE_V
    assert float(rows[0, b]) == pytest.approx((times + 1) / total, rel=1e-5)
    torch.testing.assert_close(rows[1], torch.full((LARGE_V,), 1 / LARGE_V))


def test_fitting_again_replaces_the_counts() -> None:
    model = fitted([0, 1, 0, 1], 3, 0)
    model.fit(torch.tensor([2, 2, 2]))
    torch.testing.assert_close(probabilities(model)[:, 2], torch.tensor([1 / 3, 1 / 3, 1.0]))


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_an_unfitted_model_is_uniform(smoothing: float) -> None:
    model = CountBigram(CountBigram.Config(smoothing=smoothing), 4, 8, torch.Generator())
    torch.testing.assert_close(probabilities(model), torch.full((4, 4), 1 / 4))


@pytest.mark.parametrize("smoothing", [-1e-9, -1.0, math.inf, math.nan])
def test_smoothing_that_is_no_count_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing must be zero or more"):
        CountBigram.Config(smoothing=smoothing)


@pytest.mark.parametrize("text", [[], [0]])
def test_a_text_without_pairs_is_refused(text: list[int]) -> None:
    with pytest.raises(ValueError, match=f"at least 2 tokens, not {len(text)}"):
        count_pairs(torch.tensor(text), 3)


@pytest.mark.parametrize(
    ("text", "nats"),
    [
        ([0, 0, 1, 0], 2 / 3 * math.log(2)),  # aaba: after a (2 of 3 times) either, after b an a
        ([0, 1, 0, 1, 0], 0),
        ([0, 0, 1, 1, 0], math.log(2)),
        ([0, 0, 1, 0, 2, 1, 1, 2, 2, 0], math.log(3)),  # each pair of three once
    ],
)
def test_conditional_entropy_by_hand(text: list[int], nats: float) -> None:
    assert entropy(text, 3) == pytest.approx(nats, abs=1e-12)


def test_conditional_entropy_of_nothing_is_refused() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="not defined"):
        conditional_entropy(nothing, nothing, 3)


def test_unsmoothed_counts_score_the_conditional_entropy_on_their_own_text() -> None:
    text = random_text(20, 400)
    logits = fitted(text, 20, 0)(torch.tensor([text[:-1]]))[0].double()
    nats = -logits[range(len(text) - 1), text[1:]].mean()
    assert float(nats) == pytest.approx(entropy(text, 20), rel=1e-6)


def test_tinyshakespeare_has_its_known_facts(tinyshakespeare: Corpus) -> None:
    """2.4519 nats is the floor of all bigram models; add-1 counts score 2.4819 on validation."""
    train, validation = map(torch.from_numpy, (tinyshakespeare.train, tinyshakespeare.validation))
    V = tinyshakespeare.vocab_size
    pair_P, count_P = count_pairs(train, V)
    assert round(conditional_entropy(pair_P, count_P, V), 4) == 2.4519
    model = fitted(tinyshakespeare.train.tolist(), V, 1.0)
    log_p = model(torch.arange(V)[None])[0].double()
    assert round(-float(log_p[validation[:-1], validation[1:]].mean()), 4) == 2.4819
