"""The second study: counting by hand, what a rank can do at best, and a report on real runs.

Shapes: N tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from analysis.command import main
from analysis.comparison import counting, rank
from analysis.comparison.counting import (
    by_elements,
    by_histogram,
    by_lists,
    by_pairs,
    time_counting,
)
from analysis.comparison.measure import BABY, COUNT, Comparison, comparison_of
from analysis.comparison.rank import (
    Factors,
    cross_entropy,
    likeliest_by_rank,
    nearest_factors,
    pair_counts,
)
from analysis.comparison.report import report_of, side_by_side
from bigram_models import CountBigram, conditional_entropy, count_pairs
from tests.sweeps.running import SweepFolder
from trainables.training import timing
from trainables.training.evaluation import exact_loss

CPU = torch.device("cpu")
SWEEP = """
name: small
corpus: file:play.txt
seed: 42
training: {max_steps: 60, batch_size: 32, eval_every: 60}
arms:
  - model: {variant: count}
  - model: {variant: bigram}
  - model: {variant: factorized}
    grid: {model.n_embd: [2, 32]}
"""


@pytest.fixture
def text() -> Tensor:
    """Ids (N,) of six characters, each of which depends on the one before."""
    chance = torch.Generator().manual_seed(1)
    row_VV = (2 * torch.randn(6, 6, generator=chance)).softmax(1)
    ids = [0]
    for _ in range(3_000):
        ids.append(int(torch.multinomial(row_VV[ids[-1]], 1, generator=chance)))
    return torch.tensor(ids, dtype=torch.int32)


def test_all_ways_of_counting_give_what_is_counted_by_hand() -> None:
    ids = [0, 0, 1, 0]  # aaba: aa, ab, ba
    by_hand = torch.tensor([[1, 1], [1, 0]])
    assert torch.equal(by_lists(ids, 2), by_hand)
    assert torch.equal(by_elements(ids, 2, CPU), by_hand)
    assert torch.equal(by_histogram(torch.tensor(ids), 2), by_hand)
    assert torch.equal(by_pairs(torch.tensor(ids), 2), by_hand)
    assert torch.equal(pair_counts(torch.tensor(ids), 2), by_hand.double())


def test_a_way_that_counts_differently_is_not_reported(
    text: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "BUDGET_S", 0.0)
    assert {one.tokens for one in time_counting(text, 6, [CPU])} == {len(text)}
    monkeypatch.setattr(counting, "by_histogram", lambda few_N, V: torch.zeros(V, V))
    with pytest.raises(ArithmeticError, match="histogram on cpu counts 3001 tokens differently"):
        time_counting(text, 6, [CPU])


def test_the_loss_from_counts_is_that_of_the_evaluation(text: Tensor) -> None:
    model = CountBigram(CountBigram.Config(), 6, 8, torch.Generator())
    model.fit(text[:2_000])
    rest_N = text[2_000:]
    table_VV = model(torch.arange(6)[:, None])[:, 0]
    expected = exact_loss(model, rest_N, 8)
    assert cross_entropy(table_VV, pair_counts(rest_N, 6)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("by_frequency", [False, True])
def test_at_full_rank_the_svd_is_the_count_model_itself(text: Tensor, by_frequency: bool) -> None:
    counts_VV = pair_counts(text, 6)
    table_VV = ((counts_VV + 1) / (counts_VV + 1).sum(1, keepdim=True)).log()
    row_V = counts_VV.sum(1) if by_frequency else torch.ones(6, dtype=torch.float64)
    own = cross_entropy(table_VV, counts_VV)
    losses = [
        cross_entropy(nearest_factors(table_VV, D, row_V).logits, counts_VV) for D in range(7)
    ]
    assert losses[5] == pytest.approx(own, abs=1e-12)
    assert losses[6] == pytest.approx(own, abs=1e-12)
    assert losses[4] > own + 1e-4


def test_the_svd_cannot_be_improved_in_the_sense_of_least_squares(text: Tensor) -> None:
    table_VV = (pair_counts(text, 6) + 1).log()
    row_V = torch.arange(1.0, 7.0, dtype=torch.float64)

    def distance(logits_VV: Tensor) -> Tensor:
        """Weighted, and less what the best constant of each row takes away."""
        rest_VV = table_VV - logits_VV
        return (row_V[:, None] * (rest_VV - rest_VV.mean(1, keepdim=True)) ** 2).sum()

    best = nearest_factors(table_VV, 2, row_V)
    parts = [part.clone().requires_grad_() for part in (best.embed, best.weight, best.bias)]
    distance(Factors(*parts).logits).backward()
    assert all(part.grad.abs().max() < 1e-9 for part in parts if part.grad is not None)
    whole = nearest_factors(table_VV, 5, row_V)
    for first, second in combinations(range(5), 2):  # other stationary points are worse
        E, W = (part[:, [first, second]] for part in (whole.embed, whole.weight))
        assert distance(E @ W.T + whole.bias) >= distance(best.logits) - 1e-9


def test_the_floor_falls_with_the_rank_to_the_conditional_entropy(
    text: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "ITERATIONS", 200)
    counts_VV = pair_counts(text, 6)
    entropy = conditional_entropy(*count_pairs(text, 6), 6)
    found = likeliest_by_rank(counts_VV, range(8))
    floors = [cross_entropy(found[rank].logits, counts_VV) for rank in range(8)]
    assert all(low <= high + 1e-9 for high, low in pairwise(floors))
    assert min(floors) >= entropy - 1e-9
    share_V = counts_VV.sum(0) / counts_VV.sum()
    assert floors[0] == pytest.approx(-float((share_V * share_V.log()).sum()), abs=1e-6)
    assert floors[3] > entropy + 1e-3
    assert floors[5] == pytest.approx(entropy, abs=1e-5)
    assert floors[5:] == [floors[5]] * 3


def test_the_floor_of_a_text_from_a_rank_1_model_is_its_entropy() -> None:
    chance = torch.Generator().manual_seed(3)
    u_V, v_V, b_V = torch.randn(3, 6, generator=chance, dtype=torch.float64)
    table_VV = (3 * torch.outer(u_V, v_V) + b_V).log_softmax(1)
    counts_VV = 1e6 * table_VV.exp()
    entropy = cross_entropy(table_VV, counts_VV)
    found = likeliest_by_rank(counts_VV, [0, 1])
    assert cross_entropy(found[1].logits, counts_VV) == pytest.approx(entropy, abs=1e-6)
    assert cross_entropy(found[0].logits, counts_VV) > entropy + 0.01
    assert math.isinf(cross_entropy(torch.eye(2).log(), torch.ones(2, 2)))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepFolder]:
    """A finished sweep, in its folder, and a comparison that takes seconds."""
    folder = SweepFolder(tmp_path_factory.mktemp("compare"), SWEEP, characters=20_000)
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(rank, "ITERATIONS", 100)
        patch.setattr(counting, "LOOP_TOKENS", 1_000)
        patch.setattr(timing, "BUDGET_S", 0.0)
        yield folder


@pytest.fixture(scope="module")
def found(swept: SweepFolder) -> Comparison:
    return comparison_of("small", f"sqlite:///{swept.path}/state/mlflow.db", swept.path)


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def test_the_report_has_both_models_with_the_losses_of_their_runs(
    swept: SweepFolder, found: Comparison
) -> None:
    table = side_by_side(found).set_index("")
    for name, variant, n_embd in ((BABY, "factorized", "32"), (COUNT, "count", None)):
        (run,) = (
            run
            for run in swept.runs()
            if (run.data.params["variant"], run.data.params.get("n_embd")) == (variant, n_embd)
        )
        for loss in ("train_loss", "val_loss"):
            assert table.loc[loss, name] == f"{run.data.metrics[loss]:.5f}"
        stored = table.loc["val_loss, from the stored model", name]
        assert float(stored) == pytest.approx(run.data.metrics["val_loss"], abs=2e-5)
        assert table.loc["run", name] == run.info.run_id
    assert list(found.widths["n_embd"]) == [2, 32]
    assert (found.widths["floor"] >= found.entropy - 1e-9).all()
    assert (found.widths["train_loss"] > found.widths["floor"]).all()


def test_the_same_findings_give_the_same_bytes(found: Comparison) -> None:
    first, second = report_of(found), report_of(found)
    assert first.figures == second.figures
    assert first.html == second.html


def test_the_command_writes_a_page_and_its_text(swept: SweepFolder, tmp_path: Path) -> None:
    done = compare("small", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    page, text = (Path(line) for line in done.stdout.split())
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        *("reading", "timing", "timing", "timing", "looking", "timing"),
    ]
    assert (tmp_path / "report.html", tmp_path / "report.md") == (page, text)
    for words in (BABY, COUNT, "Python lists, a loop", "What training leaves", "on file:play.txt"):
        assert words in text.read_text()
        assert words in page.read_text()
    assert "nan" not in text.read_text().split("## What they write")[0]


def test_what_is_missing_is_said(swept: SweepFolder) -> None:
    done = compare()
    assert done.exit_code == 2
    assert "has no experiment 'compare'" in done.output
    assert "The runs to compare come from `sweeps run compare`" in done.output
    text = swept.path / "play.txt"
    before = text.read_text()
    try:
        text.write_text(before + "more")
        done = compare("small")
    finally:
        text.write_text(before)
    assert done.exit_code == 2
    assert "is not the text that 'small' was trained on" in done.output
