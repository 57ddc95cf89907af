"""What share of a GPU a trial gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweeps.resources.gpu_report import ASSUMED_BYTES, GpuReport
from sweeps.resources.gpus import GpuShares, choose_gpus, usable_gpus
from sweeps.resources.nodes import Node, concurrency
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.errors import UserError, validate

GIB = 2**30
ALONE = Resources(pack="off")
BROKEN = GpuReport("NVIDIA T4", 0, "this build of torch is for CPUs")
MakeTrial = Callable[..., TrialConfig]


def gpu(free_gib: float, problem: str = "") -> GpuReport:
    return GpuReport("" if problem else "NVIDIA H200", int(free_gib * GIB), problem)


def test_a_gpu_is_used_unless_the_file_says_otherwise() -> None:
    assert Resources().is_auto
    assert Resources().may_use_gpus
    assert not Resources(gpus_per_trial=0).may_use_gpus


@pytest.mark.parametrize(
    ("alone_gib", "free_gib", "count"),
    [
        (0.9, 79, 16),  # 79 fit, but 16 are enough
        (10, 80, 7),  # a tenth is left free: 72 of 80
        (24, 80, 3),
        (24.1, 80, 2),
        (36.1, 80, 1),
        (79.9, 80, 1),
        (90, 80, 1),
    ],
)
def test_as_many_share_a_gpu_as_fit(alone_gib: float, free_gib: float, count: int) -> None:
    resources, _ = choose_gpus(ALONE, [Node(64, 1)], [gpu(free_gib)], int(alone_gib * GIB))
    assert resources.gpus == 1 / count


@pytest.mark.parametrize(
    ("reports", "nodes", "share", "words"),
    [
        ([gpu(79)], [Node(16, 1)], 1 / 16,
         "1 x NVIDIA H200, 79.0 GiB free: 16 trials at a time on each"),
        ([gpu(79)], [Node(4, 1)], 1 / 4, "4 trials"),  # more have no CPU
        ([gpu(79)], [Node(2, 4)], 1, "4 x NVIDIA H200, 79.0 GiB free or more: 1 trial at a time"),
        ([gpu(79)], [Node(64, 0), Node(5, 2)], 1 / 3, "2 x NVIDIA H200"),
        ([gpu(80), gpu(6)], [Node(64, 1)] * 2, 1 / 5, "2 x NVIDIA H200, 6.0 GiB free or more"),
        ([None, gpu(6)], [Node(64, 1)] * 2, 1 / 5, "6.0 GiB"),
        ([BROKEN, gpu(6)], [Node(64, 1)] * 2, 1 / 5, "6.0 GiB"),
        ([gpu(0.9)], [Node(64, 1)], 1, "a trial needs 1.0 GiB and may fail"),
        ([gpu(8, "no NVML")], [Node(8, 1)], 1 / 7,
         "1 x GPU, 8.0 GiB each assumed (no NVML): 7 trials"),
        ([], [Node(8, 1)], 1 / 7, "8.0 GiB each assumed (no machine has reported it)"),
        ([None], [Node(8, 2)], 0, "torch can use none: the trials train on CPUs (it finds none)"),
        ([BROKEN], [Node(8, 2)], 0,
         "torch can use none: the trials train on CPUs (this build of torch is for CPUs)"),
        ([BROKEN], [Node(8, 0)], 0, "(this build of torch is for CPUs)"),
    ],
)  # fmt: skip
def test_auto_becomes_a_number(
    reports: list[GpuReport | None], nodes: list[Node], share: float, words: str
) -> None:
    resources, said = choose_gpus(ALONE, nodes, reports, GIB)
    assert resources == Resources(gpus_per_trial=share, pack="off")
    assert words in said
    assert concurrency(resources, nodes) > 0


def test_the_memory_that_is_assumed_is_modest() -> None:
    found = usable_gpus([Node(8, 1)], [])
    assert found is not None
    assert found.free_bytes == ASSUMED_BYTES == 8 * GIB


def test_no_more_than_two_packs_share_a_gpu() -> None:
    resources, said = choose_gpus(Resources(), [Node(16, 1)], [gpu(79)], GIB)
    assert resources.gpus == 1 / 2
    assert "2 packs at a time on each" in said


@pytest.mark.parametrize("reports", [[], [None], [None, None]])
def test_without_a_gpu_the_trials_train_on_cpus_and_nothing_is_said(
    reports: list[GpuReport | None],
) -> None:
    nodes = [Node(8, 0), Node(2, 0)]
    resources, said = choose_gpus(Resources(), nodes, reports, GIB)
    assert (resources.gpus, said) == (0, "")
    assert concurrency(resources, nodes) == 10


@pytest.mark.parametrize("gpus", [0, 0.25, 2])
def test_a_number_stays_as_it_is(gpus: float) -> None:
    resources = Resources(gpus_per_trial=gpus)
    assert choose_gpus(resources, [Node(8, 8)], [gpu(80)], GIB) == (resources, "")


@pytest.mark.parametrize("given", ["autos", "", -1, True, None, float("nan"), float("inf"), [1]])
def test_other_words_than_auto_are_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"sweep\.yaml: gpus_per_trial: give auto, or a number"):
        validate(Resources, {"gpus_per_trial": given}, "sweep.yaml: ")


class TestShares:
    def test_it_doubles_up_to_a_whole_gpu(self, make_trial: MakeTrial) -> None:
        trial, shares = make_trial("bigram"), GpuShares(0.3)
        assert shares.share_of(trial) == 0.3
        assert shares.grow(trial, 0.3) == shares.share_of(trial) == 0.6
        assert shares.grow(trial, 0.6) == shares.share_of(trial) == 1
        assert shares.grow(trial, 1) is None

    @pytest.mark.parametrize("gpus", [0, 1, 2])
    def test_there_is_nothing_larger(self, gpus: float, make_trial: MakeTrial) -> None:
        assert GpuShares(gpus).grow(make_trial("bigram"), gpus) is None

    def test_trials_of_a_shape_learn_from_each_other(self, make_trial: MakeTrial) -> None:
        shares = GpuShares(0.25)
        one, same = (make_trial("bigram", seed=seed, learning_rate=seed / 9) for seed in (1, 2))
        other = make_trial("bigram", batch_size=128)
        assert shares.grow(one, 0.25) == 0.5
        assert shares.share_of(same) == 0.5
        assert shares.grow(same, 0.25) == 0.5  # it ran before the first one was known
        assert shares.share_of(other) == 0.25
