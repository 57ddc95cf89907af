"""Where configurations are judged, and how much of them is trained."""

from __future__ import annotations

import random
from statistics import fmean

import optuna
import pytest

from sweeps.planning.rungs import learnt_share, random_startup, rungs, trained_share
from sweeps.search.pruners import make_pruner
from sweeps.spec.search_spec import Stopping
from trainables.config import TrainingConfig

TRAINING = TrainingConfig(max_steps=5_000, eval_every=500)
MEDIAN = Stopping(rule="median", first_step=3_000, startup=3)
ASHA = Stopping(rule="asha", reduction=3)


@pytest.mark.parametrize(
    ("stopping", "first_step", "suggestions", "share"),
    [
        (Stopping(rule="none"), 1_000, 10, 1),
        (MEDIAN, 3_000, 3, 1),  # all of them before the rule begins
        (MEDIAN, 3_000, 4, 1 - 0.4 / 4 / 2),
        (ASHA, 1_667, 1, 1),
        (ASHA, 1_667, 3, 1 - (1 - (1 + 1 / 2 + 1 / 3) / 3) * 0.6),  # judged at 2,000
        (ASHA, 5_000, 3, 1),  # never judged
    ],
)
def test_the_share_of_steps_that_are_trained(
    stopping: Stopping, first_step: int, suggestions: int, share: float
) -> None:
    found = trained_share(stopping, first_step, TRAINING, suggestions)
    assert found == pytest.approx(share, abs=0.02)


def test_suggestions_that_are_learnt_are_stopped_less_often() -> None:
    by_chance = trained_share(ASHA, 1_667, TRAINING, 60)
    learnt = trained_share(ASHA, 1_667, TRAINING, 60, learnt_share("tpe", 60))
    assert by_chance + 0.02 < learnt < 0.85


def test_a_sampler_learns_from_results_once_it_has_some() -> None:
    assert [random_startup(count) for count in (None, 1, 24, 400)] == [10, 4, 6, 10]
    assert [learnt_share("tpe", count) for count in (3, 24)] == [0, 18 / 24]
    assert learnt_share("random", 24) == learnt_share("qmc", 24) == 0


@pytest.mark.parametrize("stopping", [MEDIAN, ASHA, Stopping(rule="asha", reduction=2)], ids=str)
@pytest.mark.parametrize("suggestions", [6, 60])
def test_the_share_is_what_optuna_leaves_of_configurations_in_random_order(
    stopping: Stopping, suggestions: int
) -> None:
    first_step = stopping.first_step or 1_000
    chance = random.Random(5)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shares = []
    for _ in range(60 if suggestions < 10 else 6):
        study = optuna.create_study(pruner=make_pruner(stopping, first_step))
        for _ in range(suggestions):
            trial, loss, reached = study.ask(), chance.random(), TRAINING.last_step
            for step in rungs(stopping, first_step, TRAINING):
                trial.report(loss, step)
                if trial.should_prune():
                    reached = step
                    break
            shares.append(reached / TRAINING.last_step)
            pruned = reached < TRAINING.last_step
            state = optuna.trial.TrialState.PRUNED if pruned else None
            study.tell(trial, None if pruned else loss, state=state)
    expected = trained_share(stopping, first_step, TRAINING, suggestions)
    assert expected == pytest.approx(fmean(shares), abs=0.05)
