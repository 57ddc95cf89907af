"""What trials took before is told by the outboxes of the state directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from sweeps.planning.earlier import StepTiming, earlier_timings
from sweeps.planning.plan import Plan
from sweeps.planning.planner import make_plan
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.outbox_file import OUTBOX
from sweeps.records.state import State
from sweeps.tracking.description import describe_trial
from trainables.training.timing import one_thread
from trainables.worker.worker import hardware_tag

HERE = [
    "model.n_embd=16",
    "training.block_size=8,16",
    "model.pe_type=rope",
    "training.max_steps=40",
]

Trained = Callable[..., None]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


@pytest.fixture
def made(state: State) -> Plan:
    return make_plan("quickstart", HERE, state)


@pytest.fixture
def trained(state: State, made: Plan) -> Trained:
    """Write down that all trials of the plan ran, evaluated at steps 10, 20 and 40."""
    with one_thread():
        here = hardware_tag(torch.device("cpu"))

    def train(
        sweep: str, step_s: float, evaluation_s: float, where: str = here, last: str = ""
    ) -> None:
        with closing(Outbox(state.sweep(sweep) / OUTBOX, sweep)) as outbox:
            trials = {trial.key: describe_trial(made, trial) for trial in made.trials}
            outbox.describe({}, trials)
            for key in trials:
                outbox.record(TrialEvent(key, "started", time_ms=1_000))
                for number, step in enumerate((10, 20, 40)):
                    took_s = step * step_s + number * evaluation_s
                    outbox.record(
                        TrialEvent(
                            key,
                            "progressed",
                            step=step,
                            evaluations=[
                                {
                                    "step": step,
                                    "training_s": step * step_s,
                                    **(
                                        {"train_part": "slice" if step < 40 else last}
                                        if last
                                        else {}
                                    ),
                                }
                            ],
                            hardware=where,
                            time_ms=1_000 + round(1_000 * took_s),
                        )
                    )
                outbox.record(TrialEvent(key, "finished", time_ms=100_000))

    return train


def test_steps_and_evaluations_of_all_sweeps_count_by_their_median(
    state: State, made: Plan, trained: Trained
) -> None:
    for number, step_s in enumerate((0.1, 0.2, 0.4)):
        trained(f"sweep{number}", step_s, 10 * step_s)
    earlier = earlier_timings(state)
    for trial in made.trials:
        timing = earlier.of(trial)
        assert timing is not None
        assert timing.step_s == pytest.approx(0.2)
        assert timing.evaluation_s == {"exact": pytest.approx(2.0)}, "as earlier versions did"


def test_the_parts_of_the_training_split_have_times_of_their_own(
    state: State, made: Plan, trained: Trained
) -> None:
    trained("before", 0.1, 4.0)
    trained("after", 0.1, 1.0, last="exact")
    for changes in ([], ["training.evaluate_train=end"]):
        for trial in make_plan("quickstart", [*HERE, *changes], state).trials:
            timing = earlier_timings(state).of(trial)
            assert timing is not None
            assert timing.evaluation_s == {
                "slice": pytest.approx(1.0), "exact": pytest.approx((4.0 + 1.0) / 2)
            }  # fmt: skip


def test_settings_that_cost_nothing_may_differ_and_others_may_not(
    state: State, made: Plan, trained: Trained
) -> None:
    trained("first", 0.1, 1.0)
    earlier = earlier_timings(state)
    free = ["training.learning_rate=1e-3", "training.max_steps=70", "seed=5", "name=other"]
    assert all(map(earlier.of, make_plan("quickstart", [*HERE, *free], state).trials))
    for other in ("training.batch_size=32", "training.evaluation=sampled", "model.n_embd=32"):
        changed = make_plan("quickstart", [*HERE, other], state).trials
        assert [t for t in changed if earlier.of(t) and t.flat.get("n_embd") != 384] == [
            t for t in changed if t.flat["variant"] == "bigram" and other == "model.n_embd=32"
        ]


def test_what_another_machine_took_does_not_count(
    state: State, made: Plan, trained: Trained
) -> None:
    trained("elsewhere", 0.1, 1.0, "one GPU")
    assert not any(map(earlier_timings(state).of, made.trials))


def test_a_damaged_outbox_is_left_out(state: State, made: Plan, trained: Trained) -> None:
    trained("first", 0.1, 1.0)
    state.sweep("broken").mkdir()
    (state.sweep("broken") / OUTBOX).write_text("no database")
    assert earlier_timings(state).of(made.trials[0]) == StepTiming(
        pytest.approx(0.1), {"exact": pytest.approx(1.0)}
    )
