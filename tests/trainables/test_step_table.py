"""What the steps of a stack read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trainables.config import TrialConfig
from trainables.data.batches import batch_starts
from trainables.training import step_table
from trainables.training.step_table import StepTable

MakeTrial = Callable[..., TrialConfig]
CPU = torch.device("cpu")


def table_of(trials: list[TrialConfig]) -> StepTable:
    return StepTable(trials, 1_000, CPU, torch.float32)


@pytest.mark.parametrize("is_ahead", [False, True])
def test_rows_are_the_next_steps_of_each_member(make_trial: MakeTrial, is_ahead: bool) -> None:
    trials = [make_trial(seed=seed, batch_size=3, max_steps=50) for seed in (4, 5)]
    table = table_of(trials)
    table.fill([0, 2], 7)
    if is_ahead:
        table.draw_ahead([7, 9])
    table.fill([7, 9], 20)
    assert int(table.row_1) == 0
    for i, (trial, first) in enumerate(zip(trials, (7, 9), strict=True)):
        expected = torch.from_numpy(batch_starts(trial.seed, first, 20, 3, 1_000))
        assert torch.equal(table.starts_SMB[:20, i], expected)


def test_what_was_drawn_for_other_steps_is_not_used(make_trial: MakeTrial) -> None:
    trials = [make_trial(seed=4, batch_size=3, max_steps=50)]
    table = table_of(trials)
    table.fill([0], 7)
    table.draw_ahead([7])  # 7 steps
    table.fill([8], 20)
    expected = torch.from_numpy(batch_starts(4, 8, 20, 3, 1_000))
    assert torch.equal(table.starts_SMB[:20, 0], expected)


def test_a_large_pack_has_fewer_rows(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [make_trial(seed=seed, batch_size=10, max_steps=50) for seed in range(4)]
    assert table_of(trials).rows == step_table.STEPS
    monkeypatch.setattr(step_table, "CELLS", 200)
    assert table_of(trials).rows == 5


def test_the_first_loss_that_is_not_finite_is_found(make_trial: MakeTrial) -> None:
    table = table_of([make_trial(seed=seed) for seed in range(3)])
    table.losses_SM[:4] = torch.tensor(
        [[1.0, 2.0, 3.0], [1.0, torch.inf, 3.0], [1.0, torch.nan, 3.0], [1.0, 2.0, torch.nan]]
    )
    assert table.first_bad(4) == {
        1: (1, float("inf")),
        2: (3, pytest.approx(torch.nan, nan_ok=True)),
    }
    assert table.first_bad(1) == {}
