"""What the trials of a sweep get on some machines, and how many run at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pytest

from sweeps.planning.estimate import estimate
from sweeps.planning.forecast import SearchForecast
from sweeps.resources.allocation import Allocation, GpuMeter, allocate
from sweeps.resources.nodes import Node
from tests.sweeps.searches import SWEEP, plan
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.errors import UserError
from trainables.training.gpu_memory import GpuUse
from trainables.training.stack import stack_shape

GRID = """
name: grid
corpus: file:play.txt
training: {max_steps: 100, block_size: 4}
arms: [{model: {variant: bigram}}, {model: {variant: factorized, n_embd: 4}}]
replicates: 8
"""
GIB = 2**30


def never(*_: object) -> list[GpuUse | None]:
    raise AssertionError("nothing is to be measured")


def allocated(text: str, nodes: Sequence[Node], meter: GpuMeter, *overrides: str) -> Allocation:
    made = plan(text, *overrides)
    cost = estimate(made.trials, made.corpus, SearchForecast.of(made, 0))
    return allocate(made, made.trials, cost, nodes, meter)


def test_without_a_gpu_each_trial_trains_alone_on_a_cpu() -> None:
    auto = "resources.gpus_per_trial=auto"
    found = allocated(GRID, [Node(4, 0), Node(2, 0)], GpuMeter(never, lambda *_: {}), auto)
    assert (found.resources.gpus, found.at_once) == (0, 6)
    assert found.gpu_reason == "there is none: the trials train on CPUs"
    assert (found.pack_counts, found.largest_pack) == ("", 1)


def test_gpus_and_packs_are_measured_where_the_file_leaves_them_open() -> None:
    asked: list[tuple[int, float]] = []

    def sizes(
        trials: Sequence[TrialConfig], most: int, corpus: Corpus, share: float
    ) -> dict[Hashable, int]:
        asked.append((most, share))
        return {stack_shape(trial): most for trial in trials}

    meter = GpuMeter(lambda *_: [GpuUse(GIB, 80 * GIB)], sizes)
    found = allocated(GRID, [Node(16, 1)], meter, "resources.gpus_per_trial=auto")
    assert (found.resources.gpus, found.at_once) == (0.5, 2)
    assert found.gpu_reason == "a trial takes 1.0 GiB of 80.0 GiB: 0.5 of a GPU each"
    assert asked == [(8, 0.5)]  # sixteen trials in two places
    assert (found.pack_counts, found.largest_pack) == ("2 of 8 trials", 8)


def test_a_search_that_has_no_trial_yet_is_measured_by_its_examples() -> None:
    shapes: list[str] = []

    def uses(trials: Sequence[TrialConfig], corpus: Corpus) -> list[GpuUse | None]:
        shapes.extend(trial.model.variant for trial in trials)
        return [None]

    found = allocated(SWEEP, [Node(2, 1)], GpuMeter(uses, never), "resources.gpus_per_trial=auto")
    assert shapes
    assert set(shapes) == {"factorized"}
    assert (found.resources.gpus, found.at_once) == (0, 2)


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match="no machine has them"):
        allocated(GRID, [Node(2, 0)], GpuMeter(never, never), "resources.cpus_per_trial=3")
