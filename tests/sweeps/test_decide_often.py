"""Two hundred sweeps that decide claims, killed at random: trials, verdicts and errors.

They take about 20 s on a core.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.sweeps.deciding import CLAIMS, MEANS, DecidedSweep, normal, verdicts

pytestmark = pytest.mark.slow
REPETITIONS = 200
# Trials of the design with eight seeds of everything. At one look its t-tests show that rope is
# better than sinpe in both cells, by 1.41 standard deviations, in 95 % of sweeps.
FIXED = 7 * 8


def test_verdicts_are_right_and_take_fewer_trials_than_a_fixed_design() -> None:
    found: Counter[str] = Counter()
    trials = 0
    for repetition in range(REPETITIONS):
        chance = random.Random(repetition)
        sweep = DecidedSweep(normal(repetition))
        sweep.run(dies_after=chance.randrange(5, 60))
        sweep.run(dies_after=chance.randrange(5, 60))
        decider = sweep.run()
        found.update(f"{index} {verdict}" for index, verdict in enumerate(verdicts(decider)))
        trials += len(sweep.trials)
    for expected in ("0 SUPPORTED", "1 SUPPORTED", "2 NOT SUPPORTED"):
        assert found[expected] >= 0.95 * REPETITIONS, found
    assert trials / REPETITIONS < FIXED


def test_a_null_is_supported_in_five_percent_at_most() -> None:
    null = {**MEANS, "rope": 2.33}
    one_cell = {**CLAIMS[1], "where": {"variant": "attention", "block_size": 4}}
    wrong = 0
    for repetition in range(REPETITIONS):
        sweep = DecidedSweep(normal(repetition, null), claims=[one_cell])
        wrong += verdicts(sweep.run()) == ["SUPPORTED"]
    assert wrong <= 0.05 * REPETITIONS + 2 * (REPETITIONS * 0.05 * 0.95) ** 0.5
