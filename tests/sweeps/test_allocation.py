"""What the trials of a sweep get on some machines, and how many run at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sweeps.planning.estimate import estimate
from sweeps.planning.forecast import SearchForecast
from sweeps.resources.allocation import Allocation, allocate
from sweeps.resources.gpu_report import GpuReport
from sweeps.resources.nodes import Node
from sweeps.search.queue import Queue
from tests.sweeps.searches import SWEEP, plan
from trainables.errors import UserError

GRID = """
name: grid
corpus: file:play.txt
training: {max_steps: 100, block_size: 4}
arms: [{model: {variant: bigram}}, {model: {variant: factorized, n_embd: 4}}]
replicates: 8
"""
GIB = 2**30
H200 = GpuReport("NVIDIA H200", 80 * GIB)
ONE = [Node(16, 1)]


def allocated(
    text: str, nodes: Sequence[Node], reports: Sequence[GpuReport | None], *overrides: str
) -> Allocation:
    made = plan(text, *overrides)
    return allocate(made, made.trials, nodes, reports)


@pytest.mark.parametrize("override", ["resources.gpus_per_trial=auto", "resources.pack=auto"])
def test_without_a_gpu_each_trial_trains_alone_on_a_cpu(override: str) -> None:
    found = allocated(GRID, [Node(4, 0), Node(2, 0)], [None], override)
    assert (found.resources.gpus, found.at_once, found.speed) == (0, 6, 6)
    assert (found.gpu_reason, found.pack_counts, found.largest_pack) == ("", "", 1)
    assert found.gpu_packs is None


def test_a_gpu_is_used_and_its_packs_are_as_large_as_fit() -> None:
    found = allocated(GRID, ONE, [H200])
    assert (found.resources.gpus, found.at_once, found.speed) == (0.5, 2, 1)
    assert found.gpu_reason == "1 x NVIDIA H200, 80.0 GiB free: 2 packs at a time on each"
    assert (found.pack_counts, found.largest_pack) == ("2 of 8 trials", 8)


def test_packs_are_smaller_where_less_is_free() -> None:
    """A member takes 1 GiB, and an evaluation and a process 2 GiB together."""
    text = GRID.replace("{variant: factorized, n_embd: 4}", "{variant: attention, n_embd: 64}")
    large = ["training.batch_size=65536"]
    small = allocated(text, ONE, [GpuReport("NVIDIA T4", 10 * GIB)], *large)
    assert (small.resources.gpus, small.pack_counts) == (0.5, "4 of 2 trials, 1 of 8 trials")
    tiny = allocated(text, ONE, [GpuReport("NVIDIA T4", 5 * GIB)], *large)
    assert (tiny.resources.gpus, tiny.pack_counts) == (1, "4 of 2 trials, 1 of 8 trials")
    assert allocated(text, ONE, [H200], *large).pack_counts == "2 of 8 trials"


def test_several_gpus_share_the_trials_and_the_smallest_decides() -> None:
    nodes = [Node(16, 4), Node(16, 4), Node(64, 0)]
    found = allocated(GRID, nodes, [H200, GpuReport("NVIDIA L4", 24 * GIB)])
    assert (found.at_once, found.speed) == (16, 8)
    assert "8 x NVIDIA L4, 24.0 GiB free or more: 2 packs" in found.gpu_reason
    assert found.pack_counts == "8 of 2 trials"


@pytest.mark.parametrize("reports", [[], [GpuReport("", 8 * GIB, "no NVML")]])
def test_unknown_memory_is_assumed_to_be_modest(reports: list[GpuReport | None]) -> None:
    found = allocated(GRID, ONE, reports)
    assert "1 x GPU, 8.0 GiB each assumed" in found.gpu_reason
    assert found.pack_counts == "2 of 8 trials"


def test_a_gpu_that_torch_cannot_use_is_named() -> None:
    report = GpuReport("NVIDIA H200", 0, "this build of torch is for CPUs")
    for nodes in (ONE, [Node(16, 0)]):
        found = allocated(GRID, nodes, [report])
        assert (found.resources.gpus, found.at_once) == (0, 16)
        assert found.gpu_reason.endswith("train on CPUs (this build of torch is for CPUs)")


def test_what_the_file_says_is_done() -> None:
    found = allocated(GRID, ONE, [], "resources.gpus_per_trial=0")
    assert (found.resources.gpus, found.gpu_reason) == (0, "")
    found = allocated(GRID, ONE, [H200], "resources.gpus_per_trial=0.25", "resources.pack=3")
    assert (found.resources.gpus, found.gpu_reason, found.at_once) == (0.25, "", 4)
    assert found.pack_counts == "2 of 2 trials, 4 of 3 trials"
    found = allocated(GRID, ONE, [H200], "resources.gpus_per_trial=1", "resources.pack=99")
    assert found.gpu_packs is not None
    assert {found.gpu_packs.members(trial) for trial in plan(GRID).trials} == {8}
    found = allocated(GRID, ONE, [H200], "resources.gpus_per_trial=1", "resources.pack=off")
    assert (found.pack_counts, found.largest_pack, found.speed) == ("", 1, 1)


def test_a_search_forms_packs_of_a_tenth_of_its_suggestions() -> None:
    found = allocated(SWEEP, ONE, [H200])
    made = plan(SWEEP)
    assert found.resources.gpus == 0.5
    assert {found.packs.size(trial) for trial in made.examples} == {2}  # of twenty
    assert found.gpu_packs is not None
    assert {found.gpu_packs.members(trial) for trial in made.examples} == {2}
    forecast = SearchForecast.of(made, 20)
    cost = estimate([], made.corpus, forecast, gpu_packs=found.gpu_packs)
    assert cost.work_s > 0
    assert cost.basis == "by a model of its speed"


def test_the_longest_packs_are_first() -> None:
    text = GRID.replace("replicates: 8", "replicates: 3")
    made = plan(text, "model.n_embd=4,64,16")
    found = allocate(made, made.trials, ONE, [H200])
    cost = estimate(made.trials, made.corpus, gpu_packs=found.gpu_packs)
    queue = Queue()
    queue.put(made.trials)
    queue.sort(cost.of_pack)
    packs = [queue.next(found.packs) for _ in range(4)]
    assert [len(pack) for pack in packs] == [3, 3, 3, 3]
    widths = [pack[0].flat.get("n_embd") for pack in packs if "n_embd" in pack[0].flat]
    assert widths == [64, 16, 4]
    seconds = [cost.of_pack(pack[0].key) for pack in packs]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(map(cost.of, (trial.key for trial in made.trials))) == pytest.approx(sum(seconds))


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match="no machine has them"):
        allocated(GRID, [Node(2, 0)], [], "resources.cpus_per_trial=3")
