"""What share of a GPU a trial gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from sweeps.planning.estimate import Estimate, TrialCost
from sweeps.resources.gpus import (
    GpuShares,
    choose_gpus,
    largest_of_each_shape,
    measured_here,
    share_for,
)
from sweeps.resources.nodes import Node, concurrency
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.errors import UserError, validate
from trainables.training.gpu_memory import GpuUse

GIB = 2**30
AUTO = Resources(gpus_per_trial="auto")
MakeTrial = Callable[..., TrialConfig]


def use(trial_gib: float, gpu_gib: float) -> GpuUse:
    return GpuUse(int(trial_gib * GIB), int(gpu_gib * GIB))


def never() -> Sequence[GpuUse | None]:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize(
    ("trial_gib", "gpu_gib", "count"),
    [
        (0.9, 79, 16),  # 79 fit, but 16 are enough
        (10, 80, 7),  # a tenth is left free: 72 of 80
        (24, 80, 3),
        (24.1, 80, 2),
        (36.1, 80, 1),
        (79.9, 80, 1),
        (80, 80, 1),
    ],
)
def test_as_many_share_a_gpu_as_fit(trial_gib: float, gpu_gib: float, count: int) -> None:
    assert share_for(use(trial_gib, gpu_gib)) == 1 / count


@pytest.mark.parametrize(
    ("uses", "nodes", "share", "words"),
    [
        ([use(0.9, 79)], [Node(16, 1)], 1 / 16, "takes 0.9 GiB of 79.0 GiB: 0.0625 of a GPU each"),
        ([use(0.9, 79)], [Node(4, 1)], 1 / 4, "0.25 of a GPU each"),  # more have no CPU
        ([use(0.9, 79)], [Node(2, 4)], 1, "1 of a GPU each"),
        ([use(0.9, 79)], [Node(64, 0), Node(5, 2)], 1 / 3, "0.333 of a GPU each"),
        ([use(5, 80), use(5, 24)], [Node(64, 1)] * 2, 1 / 4, "5.0 GiB of 24.0 GiB"),
        ([None, use(5, 24)], [Node(64, 1)] * 2, 1 / 4, "5.0 GiB of 24.0 GiB"),
        ([use(24, 24)], [Node(64, 1)], 1, "needs more than its 24.0 GiB"),
        ([None], [Node(8, 2)], 0, "torch can use none here: the trials train on CPUs"),
        ([], [Node(8, 2)], 1, "each trial gets a whole one"),
    ],
)
def test_auto_becomes_a_number(
    uses: list[GpuUse | None], nodes: list[Node], share: float, words: str
) -> None:
    alone = AUTO.model_copy(update={"pack": "off"})
    resources, said = choose_gpus(alone, nodes, lambda: uses)
    assert resources == Resources(gpus_per_trial=share, pack="off")
    assert words in said
    assert concurrency(resources, nodes) > 0


def test_no_more_than_two_packs_share_a_gpu() -> None:
    resources, _ = choose_gpus(AUTO, [Node(16, 1)], lambda: [use(0.9, 79)])
    assert resources.gpus == 1 / 2


def test_auto_without_a_gpu_measures_nothing_and_trains_on_cpus() -> None:
    resources, said = choose_gpus(AUTO, [Node(8, 0), Node(2, 0)], never)
    assert resources.gpus == 0
    assert "there is none: the trials train on CPUs" in said
    assert concurrency(resources, [Node(8, 0), Node(2, 0)]) == 10


@pytest.mark.parametrize("gpus", [0, 0.25, 2])
def test_a_number_stays_as_it_is(gpus: float) -> None:
    resources = Resources(gpus_per_trial=gpus)
    assert choose_gpus(resources, [Node(8, 8)], never) == (resources, "")


@pytest.mark.parametrize("given", ["autos", "", -1, True, None, float("nan"), float("inf"), [1]])
def test_other_words_than_auto_are_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"sweep\.yaml: gpus_per_trial: give auto, or a number"):
        validate(Resources, {"gpus_per_trial": given}, "sweep.yaml: ")


def test_the_largest_of_each_shape_is_measured_first(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("attention", n_embd=width, learning_rate=rate, seed=seed)
        for width in (8, 64, 16)
        for rate in (1e-2, 1e-3)
        for seed in (1, 2)
    ]
    costs = {trial.key: TrialCost(1, trial.flat["n_embd"], 0) for trial in trials}
    found = largest_of_each_shape(trials, Estimate(costs, 1, 1, 1, 0))
    assert [trial.flat["n_embd"] for trial in found] == [64, 16, 8]


def test_a_gpu_that_cannot_be_measured_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> GpuUse:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr("sweeps.resources.gpus.measure", broken)
    assert measured_here([], tokenise("verse", "to be or not to be")) == []
    assert caplog.messages == ["the GPU could not be measured: CUDA error: out of memory"]


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
