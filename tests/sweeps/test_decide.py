"""The source of further seeds: which trials it suggests, when it stops, and that a kill is nothing.

Nothing is trained: losses are made up with known means, or those of the recorded study.
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from analysis.claims.claim_file import SHIPPED, load_claims
from sweeps.deciding.decider import Decider
from sweeps.deciding.further import further_trials
from sweeps.planning.overriding import override
from sweeps.planning.planner import expand
from sweeps.records.events import TrialEvent
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from sweeps.spec.sweep_file import Resources, load_sweep
from tests.sweeps.deciding import CLAIMS, SWEEP, DecidedSweep, Losses, normal, verdicts
from tests.sweeps.searches import corpus, plan
from trainables.config import TrialConfig

RECORDED = Path(__file__).parents[2] / "docs" / "results" / "replicated" / "trials.csv"
TRUE = ["SUPPORTED", "SUPPORTED", "NOT SUPPORTED"]  # of CLAIMS
CLEAR, ROPE, RANDN = CLAIMS
BEGIN = 21  # trials that the sweep begins with: 7 configurations, 3 seeds
NULL = {"rope": 2.3, "sinpe": 2.3, "randn": 2.3, "bigram": 2.6}


def test_further_seeds_go_where_they_decide_and_to_all_sides() -> None:
    sweep = DecidedSweep(normal(), claims=[ROPE])
    decider = sweep.run()
    assert verdicts(decider) == ["SUPPORTED"]
    seeds = sweep.seeds()
    assert seeds["bigram 8"] == seeds["randn 4"] == seeds["randn 8"] == 3
    for block_size in (4, 8):
        assert 3 < seeds[f"rope {block_size}"] == seeds[f"sinpe {block_size}"] < 20
    assert len(sweep.trials) < BEGIN + 4 * 17


def test_what_is_decided_by_the_first_seeds_gets_no_more() -> None:
    sweep = DecidedSweep(normal(means={**NULL, "bigram": 4.0}), claims=[CLEAR], workers=1)
    assert verdicts(sweep.run()) == ["SUPPORTED"]
    assert set(sweep.seeds().values()) == {3}


def test_seeds_of_a_configuration_are_trained_in_their_order() -> None:
    sweep = DecidedSweep(normal())
    sweep.run()
    started: dict[str, list[int]] = {}
    for event in sweep.events:
        if event.kind == "started":
            trial = sweep.trials[event.key]
            started.setdefault(trial.with_seed(0).key, []).append(trial.seed)
    assert all(seeds == sorted(seeds) for seeds in started.values())
    assert {tuple(seeds[:3]) for seeds in started.values()} == {(1337, 1338, 1339)}
    assert max(max(seeds) for seeds in started.values()) < 1337 + 20


def test_limits_hold() -> None:
    for text, seeds, trials in (("max_seeds: 5", 5, 99), ("max_seeds: 20, trials: 25", 20, 25)):
        made = plan(SWEEP.replace("max_seeds: 20", text))
        sweep = DecidedSweep(normal(means=NULL), made, workers=3)
        decider = sweep.run()
        assert decider.is_over
        assert max(sweep.seeds().values()) <= seeds
        assert BEGIN < len(sweep.trials) <= trials
        assert sweep.seeds()["bigram 8"] == 3


def test_it_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 1
        return now_s

    monkeypatch.setattr("sweeps.deciding.decider.time.monotonic", clock)
    sweep = DecidedSweep(normal(means=NULL), plan(SWEEP, "decide.hours=0.005"))
    decider = sweep.run()
    assert decider.is_over
    assert BEGIN < len(sweep.trials) < 60
    begun = len(sweep.trials)
    assert sweep.run().is_over  # the time of earlier runs counts
    assert len(sweep.trials) <= begun + 4  # since the last look, which has the time
    sweep.plan = plan(SWEEP, "decide.hours=0.02")
    sweep.run()
    assert len(sweep.trials) > begun + 4


def test_a_null_is_not_decided_and_a_larger_limit_continues() -> None:
    made = plan(SWEEP, "decide.max_seeds=4")
    sweep = DecidedSweep(normal(), made)
    assert verdicts(sweep.run()) != TRUE
    assert max(sweep.seeds().values()) == 4
    few = set(sweep.trials)
    sweep.plan = plan(SWEEP)
    assert verdicts(sweep.run()) == TRUE
    assert few < sweep.trials.keys()
    finished = [event.key for event in sweep.events if event.kind == "finished"]
    assert len(finished) == len(set(finished)), "a finished trial was trained again"


def test_many_places_are_never_far_ahead() -> None:
    sweep = DecidedSweep(normal(means=NULL), claims=[ROPE], workers=100)
    sweep.run()
    ended: Counter[str] = Counter()
    under_way: Counter[str] = Counter()
    for event in sweep.events:
        configuration = sweep.trials[event.key].with_seed(0).key
        if event.kind == "started":
            under_way[configuration] += 1
            done = ended[configuration]
            assert under_way[configuration] <= max(3, 1 + max(1, done // 2))
        elif event.kind == "finished":
            under_way[configuration] -= 1
            ended[configuration] += 1


def next_pairs(losses: Losses, number: int) -> list[tuple[int, int]]:
    """The seed and the block size of the first pairs after the seeds that a sweep begins with."""
    _, queue = DecidedSweep(losses, claims=[ROPE]).open()
    finish(queue, losses)
    found = []
    for _ in range(number):
        sides = [trial for _ in range(2) for trial in queue.next(Packs(Resources()))]
        assert {trial.flat["pe_type"] for trial in sides} == {"rope", "sinpe"}
        ((seed, size),) = {(trial.seed, trial.training.block_size) for trial in sides}
        found.append((seed, size))
    return found


def test_a_contrast_with_a_seed_under_way_waits_for_the_others() -> None:
    order = [(1340, 4), (1340, 8), (1341, 4)]
    assert next_pairs(sized({4: -0.02, 8: -0.03}), 3) == order


def test_the_weakest_cell_goes_ahead_of_the_others_if_it_contradicts_the_claim() -> None:
    order = [(1340, 8), (1341, 8), (1340, 4), (1341, 4)]
    assert next_pairs(sized({4: -0.02, 8: 0.01}), 4) == order


def sized(differences: Mapping[int, float]) -> Losses:
    """Losses of which rope minus sinpe is known for each block size."""

    def loss(trial: TrialConfig) -> float:
        difference = differences[trial.training.block_size]
        is_rope = trial.flat.get("pe_type") == "rope"
        noise = random.Random(trial.key).uniform(-0.009, 0.009)
        return 2.3 + noise + (difference if is_rope else 0.0)

    return loss


@pytest.mark.parametrize("repetition", range(8))
def test_a_killed_driver_changes_no_verdict(repetition: int) -> None:
    chance = random.Random(repetition)
    whole = DecidedSweep(normal(repetition))
    expected = verdicts(whole.run())
    killed = DecidedSweep(normal(repetition))
    decider: Decider | None = None
    deaths = 0
    while decider is None or not decider.is_over:
        decider = killed.run(dies_after=chance.randrange(2, 80))
        deaths += 1
    assert deaths > 1
    assert verdicts(decider) == expected
    finished = [event.key for event in killed.events if event.kind == "finished"]
    assert len(finished) == len(set(finished))


def test_trials_that_fail_keep_their_claims_open_and_the_others_go_on() -> None:
    def fails(trial: TrialConfig) -> bool:
        return trial.flat.get("pe_type") == "rope" and trial.seed == 1338

    sweep = DecidedSweep(normal(), fails=fails)
    decider = sweep.run()
    assert decider.is_over
    assert verdicts(decider)[2] == "NOT SUPPORTED"
    assert verdicts(decider)[1] == "UNDERPOWERED"
    assert sweep.seeds()["rope 4"] == 3
    assert any("has failed" in line for line in decider.results())
    sweep.fails = lambda trial: False  # it is tried again by the next run
    assert verdicts(sweep.run()) == TRUE


def test_seeds_after_a_failed_one_would_not_count() -> None:
    def fails(trial: TrialConfig) -> bool:
        return recorded_name(trial.flat)[1:] == ("rope", "8", "4", "1341")

    sweep = DecidedSweep(normal(means=NULL), claims=[ROPE], workers=1, fails=fails)
    assert sweep.run().is_over
    assert (sweep.seeds()["rope 4"], sweep.seeds()["sinpe 4"]) == (5, 5)
    assert sweep.seeds()["rope 8"] > 5


def test_a_side_that_always_fails_is_named_as_the_reason() -> None:
    sweep = DecidedSweep(
        normal(), claims=[ROPE], fails=lambda trial: trial.flat.get("pe_type") == "rope"
    )
    decider = sweep.run()
    assert verdicts(decider) == ["UNDERPOWERED"]
    assert any("has failed" in line for line in decider.results())
    begun, _ = DecidedSweep(normal(), claims=[ROPE]).open()
    begun.suggest()
    assert not any("has failed" in line for line in begun.results())


def test_a_decided_sweep_trains_nothing_more() -> None:
    sweep = DecidedSweep(normal())
    sweep.run()
    begun, looks = len(sweep.trials), len(sweep.looks)
    again = sweep.run()
    assert again.is_over
    assert verdicts(again) == TRUE
    assert (len(sweep.trials), len(sweep.looks)) == (begun, looks)


def test_each_look_at_which_something_changed_is_logged() -> None:
    sweep = DecidedSweep(normal())
    decider = sweep.run()
    finished = [look.finished for look in sweep.looks]
    assert finished == sorted(set(finished))
    assert finished[-1] <= len(sweep.trials)
    assert [claim.verdict for claim in sweep.looks[-1].claims] == TRUE
    last = sweep.looks[-1].claims
    assert [claim.claim for claim in last] == [claim["claim"] for claim in CLAIMS]
    assert last[0].evidence_for > 1.3
    assert last[2].evidence_against > 1.3
    assert decider.progress_in_words == "3 claims: 3 decided, 0 open"
    assert decider.results()[0] == f"3 claims: 3 decided, 0 open after {len(sweep.trials)} trials"


def test_the_progress_says_what_comes_next() -> None:
    decider, queue = DecidedSweep(normal()).open()
    finish(queue, normal(means=NULL))
    queue.fill()
    assert decider.progress_in_words == "3 claims: 1 decided, 2 open; next 6 trials in 2 cells"


def test_trials_of_earlier_runs_with_more_replicates_count() -> None:
    sweep = DecidedSweep(normal(means=NULL), plan(SWEEP, "replicates=5", "decide.max_seeds=5"))
    sweep.run()
    assert len(sweep.trials) == 35
    sweep.plan = plan(SWEEP, "decide.max_seeds=5")
    decider = sweep.run()
    assert decider.is_over
    assert len(sweep.trials) == 35


def test_the_recorded_study_is_decided_by_fewer_trials() -> None:
    with RECORDED.open(newline="", encoding="utf-8") as file:
        losses = {recorded_name(row): float(row["val_loss"]) for row in csv.DictReader(file)}
    changes = ["decide.claims=study", "decide.max_seeds=5", "training.eval_every=5000"]
    made = expand(override(load_sweep("published")[0], changes), corpus(), "published")
    claims = load_claims(SHIPPED).claims
    sweep = DecidedSweep(
        lambda trial: losses[recorded_name(trial.flat)], made, claims=claims, workers=20
    )
    decider = sweep.run()
    assert decider.is_over
    assert 38 * 3 <= len(sweep.trials) <= 190
    found = dict(zip([c.claim.claim for c in decider.conclusions], verdicts(decider), strict=True))
    assert found["rope is better than sinpe, and sinpe than randn"] == "SUPPORTED"
    assert "NOT SUPPORTED" not in found.values()


def recorded_name(settings: Mapping[str, object]) -> tuple[str, ...]:
    names = ("variant", "pe_type", "n_embd", "block_size", "seed")
    return tuple(str(settings.get(name) or "") for name in names)


def finish(queue: Queue, losses: Losses) -> None:
    """Train all trials that wait in a queue."""
    for _ in range(len(queue.waiting)):
        (trial,) = queue.next(Packs(Resources(pack="off")))
        evaluation = {"step": 1, "val_loss": losses(trial)}
        queue.on_event(TrialEvent(trial.key, "progressed", 1, [evaluation]))
        queue.on_event(TrialEvent(trial.key, "finished"))


def test_all_its_seeds_stay_when_a_sweep_decides_no_longer() -> None:
    sweep = DecidedSweep(normal())
    sweep.run()
    alone = [(trial, {}) for trial in sweep.plan.trials if trial.seed == 1337]
    kept = list(further_trials(alone, sweep.records().values(), is_deciding=False))
    assert {trial.key for trial, _ in (*alone, *kept)} == sweep.trials.keys()
    clear = normal(means={**NULL, "bigram": 4.0})
    decided_at_once = DecidedSweep(clear, claims=[CLEAR], workers=1)
    decided_at_once.run()
    records = decided_at_once.records().values()
    assert list(further_trials(alone, records, is_deciding=False)) == []


def test_a_level_without_a_partner_gets_no_further_seeds() -> None:
    """No claim compares it, as its cell has no other level: sinpe is there with block_size 8."""
    text = SWEEP.replace("[rope, sinpe, randn]", "[rope, randn]").replace(
        "  - model: {variant: bigram}\n",
        "  - {model: {variant: attention, n_embd: 8, pe_type: sinpe}, training: {block_size: 8}}\n"
        "  - model: {variant: bigram}\n",
    )
    sweep = DecidedSweep(normal(means=NULL), plan(text, "decide.max_seeds=5"), claims=[ROPE])
    assert verdicts(sweep.run()) == ["UNDERPOWERED"]
    seeds = sweep.seeds()
    assert (seeds["rope 4"], seeds["rope 8"], seeds["sinpe 8"]) == (3, 5, 5)
