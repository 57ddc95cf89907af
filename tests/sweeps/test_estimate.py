"""What the estimate times, remembers and predicts, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import sweeps.planning.probing
from sweeps.planning import gpu_time
from sweeps.planning.earlier import EarlierTimings, StepTiming
from sweeps.planning.estimate import (
    EVALUATION_OVERHEAD_S,
    IN_A_SWEEP,
    STARTUP_S,
    TRIAL_OVERHEAD_S,
    estimate,
)
from sweeps.planning.forecast import SearchForecast
from sweeps.planning.gpu_memory import GpuMemory, MemberMemory, member_memory
from sweeps.planning.gpu_time import GpuPacks
from sweeps.planning.planner import make_plan
from sweeps.planning.probing import Probe, probe_all, shape
from sweeps.records.state import State
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.training.loop import Splits

MakeTrial = Callable[..., TrialConfig]

CPU = torch.device("cpu")
CORPUS = tokenise("verse", "to be or not to be\n" * 50)
TOKENS = len(CORPUS.train) + len(CORPUS.validation)  # of the last evaluation
SLICE = 2 * len(CORPUS.validation)  # of the others


class Remembered(EarlierTimings):
    """Earlier trials of a width, with a timing."""

    def __init__(self, width: int, timing: StepTiming) -> None:
        super().__init__({str(width): timing})

    def of(self, trial: TrialConfig) -> StepTiming | None:
        return self.timings.get(str(trial.flat["n_embd"]))


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths that are probed; a width takes so many seconds a step, and bytes."""
    widths: list[int] = []

    def probe(trial: TrialConfig, *_: object) -> Probe:
        width = trial.flat["n_embd"]
        widths.append(width)
        return Probe(width, width / 8, width, width, width * 1.5)

    monkeypatch.setattr(sweeps.planning.probing, "probe", probe)
    return widths


def expected_s(steps: int, step_s: float, *evaluations_s: float) -> float:
    """Of a trial whose shape was timed, with the times of its evaluations."""
    evaluating_s = IN_A_SWEEP * sum(evaluations_s) + EVALUATION_OVERHEAD_S * len(evaluations_s)
    return TRIAL_OVERHEAD_S + IN_A_SWEEP * steps * step_s + evaluating_s


def test_each_shape_is_timed_once_whatever_else_differs(
    probed: list[int], make_trial: MakeTrial
) -> None:
    trials = [
        make_trial("factorized", n_embd=width, learning_rate=rate, max_steps=steps, seed=seed)
        for width in (8, 16)
        for rate in (1e-2, 1e-3)
        for steps in (100, 1000)
        for seed in (1, 2)
    ]
    cost = estimate(trials, CORPUS)
    assert sorted(probed) == [8, 16]
    for trial in trials:
        width, steps = trial.flat["n_embd"], trial.training.max_steps
        before_last = -(-steps // trial.training.eval_every) - 1
        tokens = [SLICE] * before_last + [TOKENS]
        expected = expected_s(steps, width, *(width / 8 * number for number in tokens))
        assert cost.of(trial.key) == pytest.approx(expected)
    assert cost.basis == "from timed steps"


def test_evaluations_cost_what_they_read_of_the_training_split(
    probed: list[int], make_trial: MakeTrial
) -> None:
    for part, tokens in (("exact", TOKENS), ("slice", SLICE), ("end", len(CORPUS.validation))):
        trial = make_trial("factorized", n_embd=8, max_steps=10, eval_every=4, evaluate_train=part)
        expected = expected_s(10, 8, tokens, tokens, TOKENS)
        assert estimate([trial], CORPUS).of(trial.key) == pytest.approx(expected), part


def test_a_random_evaluation_costs_by_its_batches(probed: list[int], make_trial: MakeTrial) -> None:
    sampled = {"evaluation": "sampled", "eval_batches": 3, "batch_size": 2, "block_size": 4}
    trial = make_trial("factorized", n_embd=8, max_steps=10, **sampled)
    seconds = estimate([trial], CORPUS).of(trial.key)
    assert seconds == pytest.approx(expected_s(10, 8, 8 / 8 * 2 * 3 * 2 * 4))
    assert probed == [8]
    published = make_trial(
        "factorized", n_embd=8, max_steps=10, **sampled | {"evaluation": "published"}
    )
    seconds = estimate([published], CORPUS).of(published.key)
    assert seconds == pytest.approx(expected_s(10, 8, *[8 / 8 * 2 * 3 * 2 * 4] * 2))


def test_what_earlier_trials_took_counts_and_corrects_the_other_shapes(
    probed: list[int], make_trial: MakeTrial
) -> None:
    trials = [make_trial("factorized", n_embd=width, max_steps=10) for width in (8, 16)]
    earlier = Remembered(8, StepTiming(step_s=8 * 3, evaluation_s={"exact": 7}))
    cost = estimate(trials, CORPUS, earlier=earlier)
    assert cost.of(trials[0].key) == pytest.approx(TRIAL_OVERHEAD_S + 10 * 8 * 3 + 7)
    assert cost.of(trials[1].key) == pytest.approx(
        TRIAL_OVERHEAD_S + 3 * (10 * 16 + 16 / 8 * TOKENS) + EVALUATION_OVERHEAD_S
    )
    assert (
        cost.basis == "from what earlier trials took here (1 of 2 shapes), from timed steps"
        " (1 of 2 shapes)"
    )


def test_evaluations_of_another_part_cost_by_their_tokens(
    probed: list[int], make_trial: MakeTrial
) -> None:
    trial = make_trial("factorized", n_embd=8, max_steps=10, eval_every=4)
    known = Remembered(8, StepTiming(1, {"slice": 2, "exact": 7}))
    assert estimate([trial], CORPUS, earlier=known).of(trial.key) == pytest.approx(
        TRIAL_OVERHEAD_S + 10 + 2 * 2 + 7
    )
    exact_alone = Remembered(8, StepTiming(1, {"exact": 7}))
    slice_s = EVALUATION_OVERHEAD_S + (7 - EVALUATION_OVERHEAD_S) * SLICE / TOKENS
    assert estimate([trial], CORPUS, earlier=exact_alone).of(trial.key) == pytest.approx(
        TRIAL_OVERHEAD_S + 10 + 2 * slice_s + 7
    )


def test_the_range_is_wider_on_a_busy_machine_and_narrower_where_trials_are_known(
    probed: list[int], make_trial: MakeTrial
) -> None:
    trial = make_trial("factorized", n_embd=8, max_steps=10)
    cost = estimate([trial], CORPUS)
    assert cost.busy == pytest.approx(1.5)
    work_s = cost.seconds(1) - STARTUP_S
    assert cost.range_s(1) == pytest.approx((STARTUP_S + 0.8 * work_s, STARTUP_S + 1.8 * work_s))
    cost = estimate([trial], CORPUS, earlier=Remembered(8, StepTiming(8, {"exact": 1})))
    work_s = cost.seconds(1) - STARTUP_S
    assert cost.range_s(1)[0] == pytest.approx(STARTUP_S + 0.9 * work_s)


def test_what_a_search_stops_early_is_expected_and_its_winners_are_trained_to_the_end(
    probed: list[int], make_trial: MakeTrial
) -> None:
    example = make_trial("factorized", n_embd=8, max_steps=10)
    whole_s = expected_s(10, 8, 8 / 8 * TOKENS)
    cost = estimate([], CORPUS, SearchForecast((example,), suggested=6, confirming=2, share=0.5))
    assert cost.work_s == pytest.approx((6 * 0.5 + 2) * whole_s)
    assert cost.most_s == pytest.approx(8 * whole_s)
    assert cost.of("a trial to come") == pytest.approx((6 * 0.5 + 2) / 8 * whole_s)
    assert cost.range_s(2)[1] == pytest.approx(STARTUP_S + 8 / 2 * whole_s * 1.2 * cost.busy)


def test_what_a_sampler_prefers_costs_what_the_longer_half_of_the_configurations_does(
    probed: list[int], make_trial: MakeTrial
) -> None:
    examples = tuple(make_trial("factorized", n_embd=width, max_steps=10) for width in (8, 16, 24))
    short_s, middle_s, long_s = (expected_s(10, w, w / 8 * TOKENS) for w in (8, 16, 24))
    mean_s, preferred_s = (short_s + middle_s + long_s) / 3, (middle_s + long_s) / 2
    cost = estimate([], CORPUS, SearchForecast(examples, suggested=4, confirming=1, learnt=0.25))
    assert cost.work_s == pytest.approx(4 * (0.75 * mean_s + 0.25 * preferred_s) + preferred_s)


def test_random_configurations_stand_for_what_a_search_will_suggest(state: State) -> None:
    plan = make_plan("search", ["corpus=embedded"], state)
    assert plan.to_come == 69
    forecast = SearchForecast.of(plan, 69)
    assert (forecast.suggested, forecast.confirming) == (60, 9)
    assert 0.6 < forecast.share < 0.85
    assert forecast.learnt == 50 / 60
    shapes = {shape(example) for example in forecast.examples}
    assert 20 < len(shapes) <= 36  # of 3 x 3 x 4; the ends of the ranges alone are 8
    assert SearchForecast.of(plan, 5) == SearchForecast(
        forecast.examples, 0, 5, forecast.share, forecast.learnt
    )


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return State(tmp_path_factory.mktemp("state"))


def test_shapes_that_are_not_timed_are_predicted_by_their_work(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that takes a fixed time for each operation, multiplication and byte."""

    def probe(trial: TrialConfig, *_: object) -> Probe:
        training = trial.training
        work = sweeps.planning.probing._count(trial, CORPUS.vocab_size)
        step_s = float(work @ (3e-6, 2e-9, 1e-9))
        return Probe(step_s, step_s / training.batch_size / training.block_size, 100, 8, step_s)

    trials = [
        make_trial("attention", pe_type="rope", n_embd=width, batch_size=batch)
        for width in (8, 16, 32, 64)
        for batch in (4, 8, 16)
    ]
    shapes = {shape(trial): trial for trial in trials}
    monkeypatch.setattr(sweeps.planning.probing, "probe", probe)
    clock = iter(range(1000))
    monkeypatch.setattr(sweeps.planning.probing.time, "perf_counter", lambda: next(clock) / 2)
    monkeypatch.setattr(sweeps.planning.probing, "PROBING_S", 2)  # five of them
    monkeypatch.setattr(sweeps.planning.probing, "COUNTING_S", 100)
    found = probe_all(shapes, CORPUS.vocab_size, Splits.of(CORPUS, CPU))
    assert len(found.predicted) == 12 - 5
    for each in found.predicted:
        assert found.by_shape[each].step_s == pytest.approx(probe(shapes[each]).step_s, rel=0.05)
        assert found.by_shape[each].token_s == pytest.approx(probe(shapes[each]).token_s, rel=0.05)


def test_tables_and_other_models_are_predicted_apart(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that evaluates tables in a thousandth of the time of other models."""

    def probe(trial: TrialConfig, *_: object) -> Probe:
        work = sweeps.planning.probing._count(trial, CORPUS.vocab_size)
        step_s = float(work @ (3e-6, 2e-9, 1e-9))
        part = 1e-3 if trial.model.variant == "factorized" else 1.0
        return Probe(step_s, part * step_s / trial.training.batch_size / 8, 100, 8, step_s)

    trials = [
        make_trial(variant, n_embd=width, batch_size=batch)
        for variant in ("attention", "factorized")
        for width in (8, 16, 32, 64)
        for batch in (4, 8, 16)
    ]
    shapes = {shape(trial): trial for trial in trials}
    monkeypatch.setattr(sweeps.planning.probing, "probe", probe)
    clock = iter(range(1000))
    monkeypatch.setattr(sweeps.planning.probing.time, "perf_counter", lambda: next(clock) / 2)
    monkeypatch.setattr(sweeps.planning.probing, "PROBING_S", 5)
    monkeypatch.setattr(sweeps.planning.probing, "COUNTING_S", 100)
    found = probe_all(shapes, CORPUS.vocab_size, Splits.of(CORPUS, CPU))
    predicted = {shapes[name].model.variant for name in found.predicted}
    assert predicted == {"attention", "factorized"}
    for name in found.predicted:
        expected = probe(shapes[name]).token_s
        assert found.by_shape[name].token_s == pytest.approx(expected, rel=0.05), name


def test_without_time_to_count_the_others_cost_what_the_timed_ones_do_on_average(
    probed: list[int], make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps.planning.probing, "PROBING_S", 0)
    monkeypatch.setattr(sweeps.planning.probing, "COUNTING_S", -1)
    trials = [make_trial("factorized", n_embd=width, max_steps=10) for width in range(8, 40)]
    cost = estimate(trials, CORPUS)
    assert probed == [39]  # the largest
    assert len({cost.of(trial.key) for trial in trials}) == 1
    assert "predicted by operations and bytes (31 of 32 shapes)" in cost.basis


def test_a_trial_that_cannot_be_timed_costs_the_least(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Probe:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(sweeps.planning.probing, "probe", broken)
    trial = make_trial("factorized", n_embd=8)
    seconds = estimate([trial], CORPUS).of(trial.key)
    assert seconds == pytest.approx(TRIAL_OVERHEAD_S + EVALUATION_OVERHEAD_S)
    assert caplog.messages == [
        "factorized cannot be timed, so what is estimated leaves it out:"
        " RuntimeError: no such kernel"
    ]


def test_work_is_counted_in_operations_multiplications_and_bytes(make_trial: MakeTrial) -> None:
    made = [make_trial("attention", n_embd=8, batch_size=batch, block_size=4) for batch in (5, 10)]
    few, more = (sweeps.planning.probing._count(trial, CORPUS.vocab_size) for trial in made)
    assert few[0] == more[0] > 3
    # of scores, of values, and of the head: T^2 D, T^2 D and T V D for each sequence
    assert few[1] == 5 * (2 * 4 * 4 * 8 + 4 * 8 * CORPUS.vocab_size)
    assert more[1] == 2 * few[1]
    assert few[2] < more[2] < 2 * few[2]


@pytest.mark.parametrize("variant", ["bigram", "attention", "count"])
def test_a_real_shape_is_timed(variant: str, make_trial: MakeTrial) -> None:
    trial = make_trial(variant, max_steps=10)
    found = sweeps.planning.probing.probe(trial, CORPUS.vocab_size, Splits.of(CORPUS, CPU))
    is_trained = variant != "count"
    assert (found.step_s > 0) == (found.memory_bytes > 0) == is_trained
    assert found.usual_step_s >= found.step_s
    assert found.token_s > 0


def test_trials_that_are_done_have_a_cost_and_are_no_work(
    probed: list[int], make_trial: MakeTrial
) -> None:
    done, left = (make_trial("factorized", n_embd=width, max_steps=10) for width in (8, 16))
    cost = estimate([left], CORPUS, others=[done, left])
    assert cost.work_s == cost.of(left.key) > cost.of(done.key) > 0
    assert estimate([], CORPUS, others=[done, left]).work_s == 0


class KnownMemory(GpuMemory):
    """Members with a thousand parameters, a step of 1 MB and 1 kB for each token."""

    def member(self, trial: TrialConfig) -> MemberMemory | None:
        if trial.flat.get("n_embd") == 7:
            return None
        return MemberMemory(1_000, 16_000, 1_000_000, 1_000, 8)


def test_on_a_gpu_nothing_is_timed_and_a_trial_costs_its_part_of_the_pack(
    probed: list[int], make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "LAUNCH_S": 1e-3, "STEP_S_PER_BYTE": 1e-9, "STEP_S_PER_PARAMETER": 1e-7,
        "EVALUATION_S_PER_BYTE": 1e-8, "PACK_S": 3.0, "MEMBER_S": 0.5, "REPORT_S": 0.1,
    }.items():  # fmt: skip
        monkeypatch.setattr(gpu_time, name, value)
    trials = [make_trial("factorized", n_embd=8, max_steps=600, seed=seed) for seed in range(4)]
    packs = GpuPacks(KnownMemory(CORPUS), lambda _: 4)
    cost = estimate(trials, CORPUS, gpu_packs=packs)
    step_s = 1e-3 + 4 * (1e-9 * 1_000_000 + 1e-7 * 1_000)
    evaluations_s = 2 * 0.1 + 1e-8 * 1_000 * (TOKENS + 2 * len(CORPUS.validation))
    pack_s = 3 + 600 * step_s + 4 * (0.5 + evaluations_s)
    assert cost.of_pack(trials[0].key) == pytest.approx(pack_s)
    assert cost.of(trials[0].key) == pytest.approx(pack_s / 4)
    assert cost.work_s == pytest.approx(pack_s)
    assert cost.seconds(2) == pytest.approx(STARTUP_S + pack_s)  # the pack is the longest
    low_s, high_s = cost.range_s(1)
    assert (low_s, high_s) == pytest.approx((STARTUP_S + pack_s / 2, STARTUP_S + 1.5 * pack_s))
    assert cost.basis == "by a model of its speed"
    assert probed == []


def test_on_a_gpu_a_trial_that_takes_no_steps_and_one_that_is_unknown_cost_little(
    make_trial: MakeTrial,
) -> None:
    trials = [make_trial("count"), make_trial("factorized", n_embd=7, max_steps=1_000)]
    packs = GpuPacks(KnownMemory(CORPUS), lambda _: 1)
    cost = estimate(trials, CORPUS, gpu_packs=packs)
    fitted_s, unknown_s = (cost.of(trial.key) for trial in trials)
    assert gpu_time.PACK_S < fitted_s < unknown_s
    assert unknown_s > gpu_time.PACK_S + 1_000 * gpu_time.LAUNCH_S


MEMBERS = (1, 3, 12, 48, 192)


@pytest.mark.parametrize("block_size", [8, 64])
@pytest.mark.parametrize("width", [64, 256])
def test_on_a_gpu_a_larger_pack_takes_longer_and_less_for_each_member(
    width: int, block_size: int, make_trial: MakeTrial
) -> None:
    memory = member_memory(make_trial("attention", n_embd=width, block_size=block_size), CORPUS)
    assert memory is not None
    steps_s = [gpu_time.step_s(memory, members) for members in MEMBERS]
    assert steps_s == sorted(steps_s)
    members_s = [seconds / members for seconds, members in zip(steps_s, MEMBERS, strict=True)]
    assert members_s == sorted(members_s, reverse=True)
    assert 1e-5 < steps_s[0] < 1e-3
