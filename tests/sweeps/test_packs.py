"""Which trials train together, and how many."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue, TrialSource
from sweeps.spec.sweep_file import Resources
from trainables.config import TrialConfig
from trainables.errors import UserError, validate
from trainables.worker.reports import SplitCause

MakeTrial = Callable[..., TrialConfig]


@pytest.fixture
def trials(make_trial: MakeTrial) -> list[TrialConfig]:
    """Five bigrams, two attentions and a model that is fitted, not in this order."""
    bigrams = [make_trial(seed=seed) for seed in range(5)]
    attentions = [make_trial("attention", n_embd=4, pe_type=pe) for pe in ("rope", "randn")]
    return [bigrams[0], attentions[0], *bigrams[1:], make_trial("count"), attentions[1]]


def packs_in(queue: Queue, packs: Packs) -> list[list[str]]:
    taken = []
    while trials := queue.next(packs):
        taken.append([f"{one.model.variant} {one.seed}" for one in trials])
    return taken


def test_trials_of_a_shape_are_taken_together_in_the_order_of_the_queue(
    trials: list[TrialConfig],
) -> None:
    queue, packs = Queue(), Packs(Resources(pack=3))
    queue.put(trials)
    assert packs.count(trials) == queue.demand(packs) == 4
    assert packs.in_words(trials) == "2 of 2 trials, 1 of 3 trials; 1 trials alone"
    assert packs.largest(trials) == 3
    assert packs_in(queue, packs) == [
        ["bigram 0", "bigram 1", "bigram 2"],
        ["attention 1337", "attention 1337"],
        ["bigram 3", "bigram 4"],
        ["count 1337"],
    ]
    assert len(queue.running) == 8


@pytest.mark.parametrize("resources", [Resources(), Resources(pack="off"), Resources(pack=1)])
def test_by_default_and_if_off_each_trains_alone(
    trials: list[TrialConfig], resources: Resources
) -> None:
    queue, packs = Queue(), Packs(resources)
    queue.put(trials)
    assert packs.in_words(trials) == ""
    assert {len(pack) for pack in packs_in(queue, packs)} == {1}


class Endless(TrialSource):
    """Suggests three trials of one shape, one by one, then one of another."""

    def __init__(self, suggested: list[TrialConfig]) -> None:
        self.suggested = suggested

    def suggest(self) -> list[TrialConfig]:
        return [self.suggested.pop(0)] if self.suggested else []


def test_a_search_is_asked_until_a_pack_is_full_or_another_shape_comes(
    trials: list[TrialConfig],
) -> None:
    bigrams, attention = [trials[0], *trials[2:6]], trials[1]
    queue = Queue(Endless([*bigrams[:3], attention, *bigrams[3:]]))
    assert packs_in(queue, Packs(Resources(pack=2))) == [
        ["bigram 0", "bigram 1"],
        ["bigram 2"],
        ["attention 1337"],
        ["bigram 3", "bigram 4"],
    ]


def test_auto_takes_the_size_for_a_trial_once_for_each_shape(trials: list[TrialConfig]) -> None:
    asked: list[str] = []

    def size(trial: TrialConfig) -> int:
        asked.append(trial.model.variant)
        return 4

    packs = Packs(Resources(pack="auto"), size)
    assert [packs.size(trials[i]) for i in (0, 2, 1, 6)] == [4, 4, 4, 1]
    assert asked == ["bigram", "attention"]
    packs.split(trials[:1] + trials[2:5], SplitCause.MEMORY)
    assert [packs.size(trials[i]) for i in (0, 1)] == [2, 4]
    for resources in (Resources(pack=2), Resources(pack="off")):
        assert Packs(resources, size).size(trials[0]) == (2 if resources.pack == 2 else 1)


def test_a_shape_that_does_not_fit_has_half_as_many_from_then_on(trials: list[TrialConfig]) -> None:
    packs = Packs(Resources(pack=5))
    bigrams = [trials[0], *trials[2:6]]
    assert packs.split(bigrams, SplitCause.MEMORY) == (
        "its pack of 5 did not fit into memory, goes on in one of 2"
    )
    assert packs.size(bigrams[3]) == 2
    assert packs.size(trials[1]) == 5  # of another shape
    packs.split(bigrams[:2], SplitCause.MEMORY)
    assert packs.size(bigrams[0]) == 1


def test_what_cannot_be_one_or_dies_together_trains_alone(trials: list[TrialConfig]) -> None:
    packs = Packs(Resources(pack=5))
    packs.split(trials[:1] + trials[2:4], SplitCause.DEATHS)
    assert [packs.size(trials[i]) for i in (0, 2, 3, 4)] == [1, 1, 1, 5]
    assert not packs.can_join(trials[4], trials[0])
    assert packs.can_join(trials[4], trials[5])
    packs.split([trials[1], trials[7]], SplitCause.SHAPE)
    assert packs.size(trials[1]) == 1
    assert packs.size(trials[4]) == 5


@pytest.mark.parametrize(
    ("given", "kept"), [(False, "off"), ("off", "off"), ("auto", "auto"), (8, 8)]
)
def test_what_a_pack_may_be(given: object, kept: object) -> None:
    assert validate(Resources, {"pack": given}, "resources").pack == kept


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "many", None])
def test_what_a_pack_may_not_be(given: object) -> None:
    with pytest.raises(UserError, match=r"resources.pack: give auto, off, or a number of trials"):
        validate(Resources, {"pack": given}, "resources")
