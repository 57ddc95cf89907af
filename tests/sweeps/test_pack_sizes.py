"""How many trials of each shape train together on GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest

from sweeps.planning.gpu_memory import MOST_MEMBERS, UNKNOWN_PACK, GpuMemory, MemberMemory
from sweeps.planning.planner import make_plan
from sweeps.records.state import State
from sweeps.resources.pack_sizes import (
    GpuPackSizes,
    largest_in_search,
    spread_over,
)
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.training.stack import stack_shape

MakeTrial = Callable[..., TrialConfig]

CORPUS = tokenise("verse", "to be or not to be\n" * 50)


class Memory(GpuMemory):
    """Each member takes 10 bytes, and a process 100; a model with n_embd 7 is unknown."""

    process_bytes = 100  # type: ignore[assignment]

    def member(self, trial: TrialConfig) -> MemberMemory | None:
        is_unknown = trial.flat.get("n_embd") == 7
        return None if is_unknown else MemberMemory(1, 10, 0, 0, 1)


@pytest.mark.parametrize(("room", "size"), [(100, 1), (129, 2), (130, 3), (1e12, MOST_MEMBERS)])
def test_as_many_as_fit_form_a_pack(room: float, size: int, make_trial: MakeTrial) -> None:
    assert GpuPackSizes(Memory(CORPUS), room)(make_trial()) == size


def test_a_limit_and_a_spread_make_packs_smaller(make_trial: MakeTrial) -> None:
    first, other = make_trial(), make_trial(batch_size=4)
    sizes = GpuPackSizes(Memory(CORPUS), 1e9, 20, {stack_shape(first): 3})
    assert [sizes(first), sizes(other)] == [3, 20]


def test_models_of_unknown_memory_form_small_packs(make_trial: MakeTrial) -> None:
    trial = make_trial("factorized", n_embd=7)
    assert GpuPackSizes(Memory(CORPUS), 1e9)(trial) == UNKNOWN_PACK
    assert GpuPackSizes(Memory(CORPUS), 1e9, 2)(trial) == 2


GRID = """
name: sized
corpus: embedded
replicates: 7
arms: [{model: {variant: bigram}}]
"""
SEARCH = """
name: sized
corpus: embedded
replicates: 2
arms: [{model: {variant: bigram}, search: {training.learning_rate: [1e-3, 1e-2, 1e-1]}}]
search: {trials: 50}
"""


@pytest.mark.parametrize(
    ("sweep", "most"),
    [
        (GRID, MOST_MEMBERS),
        (SEARCH, 10),  # two seeds of a tenth of the suggestions
        (SEARCH.replace("50", "9"), 2),
        (SEARCH.replace("trials: 50", "hours: 1"), 20),
    ],
)
def test_in_a_search_a_pack_is_a_tenth_of_the_suggestions(
    sweep: str, most: int, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(sweep)
    plan = make_plan(str(tmp_path / "sweep.yaml"), [], State(tmp_path))
    assert largest_in_search(plan) == most


def launches_and_work(trial: TrialConfig, size: int) -> float:
    """Seconds of a pack on a GPU that waits for launches: by far less than its members'."""
    return float(trial.flat.get("n_embd", 1)) * (100 + size)


@pytest.fixture
def widths(make_trial: MakeTrial) -> Callable[..., list[TrialConfig]]:
    """Return 30 trials of each of these widths."""

    def make(*widths: int) -> list[TrialConfig]:
        return [make_trial("factorized", n_embd=w, seed=seed) for w in widths for seed in range(30)]

    return make


def sizes_by_width(trials: list[TrialConfig], sizes: dict[Hashable, int]) -> dict[object, int]:
    return {trial.flat["n_embd"]: sizes[stack_shape(trial)] for trial in trials}


@pytest.mark.parametrize(
    ("gpus", "given", "expected"),
    [
        (1, [1], {1: 30}),
        (4, [1], {1: 8}),  # 8 + 8 + 8 + 6
        (1, [1, 2, 30], {1: 30, 2: 30, 30: 30}),
        (2, [1, 1, 30], {1: 30, 30: 15}),  # what takes longest alone keeps two busy
        (4, [10, 10], {10: 8}),
        (4, [5, 6, 7, 8], {5: 30, 6: 30, 7: 30, 8: 30}),
        (50, [1], {1: 1}),
    ],
)
def test_packs_are_spread_over_gpus_only_if_these_had_nothing_to_do(
    gpus: int, given: list[int], expected: dict[int, int], widths: Callable[..., list[TrialConfig]]
) -> None:
    trials = widths(*dict.fromkeys(given))
    sizes = spread_over(gpus, trials, lambda _: MOST_MEMBERS, launches_and_work)
    assert sizes_by_width(trials, sizes) == expected


def test_the_fewest_packs_that_fit_are_of_equal_size(
    widths: Callable[..., list[TrialConfig]],
) -> None:
    trials = widths(1)
    sizes = spread_over(1, trials, lambda _: 16, launches_and_work)
    assert sizes_by_width(trials, sizes) == {1: 15}


def test_no_division_ends_sooner(widths: Callable[..., list[TrialConfig]]) -> None:
    """Of all sizes of two shapes, by the time of the longest pack and the mean work of the GPUs."""
    trials, gpus = widths(3, 8), 4
    firsts = {w: next(t for t in trials if t.flat["n_embd"] == w) for w in (3, 8)}

    def end_s(sizes: dict[int, int]) -> float:
        packs_s = {w: launches_and_work(firsts[w], size) for w, size in sizes.items()}
        work_s = sum(math.ceil(30 / sizes[w]) * packs_s[w] for w in sizes)
        return max(*packs_s.values(), work_s / gpus)

    found = spread_over(gpus, trials, lambda _: MOST_MEMBERS, launches_and_work)
    best_s = min(end_s({3: a, 8: b}) for a in range(1, 31) for b in range(1, 31))
    assert end_s({w: found[stack_shape(firsts[w])] for w in (3, 8)}) <= 1.05 * best_s


def test_what_is_fitted_is_in_no_pack(make_trial: MakeTrial) -> None:
    assert spread_over(2, [make_trial("count")], lambda _: 9, launches_and_work) == {}
    assert spread_over(2, [], lambda _: 9, launches_and_work) == {}
