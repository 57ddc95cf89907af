"""What tells a pack that is not what its trials are alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bigram_models.positions import ENCODINGS
from sweeps.execution.verify_pack import PARAMETERS, compare_packs, verdict
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training import adamw

MakeTrial = Callable[..., TrialConfig]


def trials(make_trial: MakeTrial, variant: str, **settings: object) -> list[TrialConfig]:
    return [make_trial(variant, max_steps=10, seed=seed, **settings) for seed in range(2)]


def test_rounding_that_adamw_enlarges_is_no_difference(
    make_trial: MakeTrial, embedded: Corpus
) -> None:
    """In float32 a gradient near zero makes 2.4e-5 of these."""
    short = {"max_steps": 10, "evaluation": "sampled", "eval_batches": 1}
    pack = [
        make_trial("attention", n_embd=256, block_size=16, pe_type=each, **short)
        for each in ENCODINGS
    ]
    (found,) = compare_packs(embedded, [pack])
    assert found.parameters < 1e-12
    assert found.is_honest
    assert torch.get_default_dtype() == torch.float32


def test_another_optimizer_is_told(
    make_trial: MakeTrial, embedded: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adamw, "EPS", 1e-7)
    compared = list(compare_packs(embedded, [trials(make_trial, "bigram")]))
    assert compared[0].parameters > PARAMETERS
    assert not verdict(compared)[0]


INSISTING = """
import torch
from bigram_models import BigramTable

class Insisting(BigramTable):
    def forward(self, ids_BT):
        return super().forward(ids_BT) @ torch.eye(self.vocab_size, dtype=torch.float32)
"""


def test_a_model_that_insists_on_float32_is_compared_in_it(
    make_trial: MakeTrial, embedded: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "insisting.py").write_text(INSISTING)
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = compare_packs(embedded, [trials(make_trial, "insisting:Insisting")])
    assert not found.problem
    assert 0 < found.parameters < PARAMETERS
    assert found.is_honest
