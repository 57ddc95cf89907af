"""Searches over made-up losses, in simulated time."""

from __future__ import annotations

import math
import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.records.events import EndCause, Kind, TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.search.queue import Queue
from sweeps.search.replay import learn
from sweeps.search.search import Search
from sweeps.search.warm_start import Observation, from_outbox, unknown_in_outbox
from tests.sweeps.searches import STEPS, SWEEP, continued, plan, record, search, studies, valley
from tests.sweeps.simulation import DriverDiedError, Simulation
from trainables.config import TrialConfig, canonical

ASHA = "search.stopping={rule: asha, first_step: 10, reduction: 2}"


def rates(found: Search) -> list[float]:
    return [trial.flat["learning_rate"] for trial, _ in found.known()]


def optuna_trials(made_studies: list[object] | Search) -> list[optuna.trial.FrozenTrial]:
    found = made_studies._studies.values() if isinstance(made_studies, Search) else made_studies
    return [trial for study in found for trial in study.stored.trials]  # type: ignore[attr-defined]


def by_state(found: Search) -> Counter[str]:
    return Counter(
        trial.state.name for trial in optuna_trials(found) if "rejected" not in trial.user_attrs
    )


def test_it_suggests_what_the_budget_allows_and_finds_the_valley() -> None:
    found = search(plan())
    simulation = Simulation(found, valley)
    simulation.run()
    assert len(simulation.keys("finished")) == len(set(simulation.keys("finished"))) == 20
    (best,) = found._studies["factorized"].best(1)
    assert abs(math.log10(best.trials[0].flat["learning_rate"]) + 2) < 0.3
    assert simulation.steps == 20 * STEPS


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "qmc"])
def test_every_sampler_suggests_the_same_again_and_other_things_from_another_seed(
    sampler: str,
) -> None:
    def suggested(*overrides: str) -> list[float]:
        chosen = "search.sampler=" + sampler
        found = search(plan(SWEEP, chosen, "search.trials=9", *overrides))
        Simulation(found, valley, workers=1).run()
        return rates(found)

    first = suggested()
    assert len(set(first)) == 9
    assert suggested() == first
    assert suggested("seed=5") != first


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_several_objectives_leave_a_pareto_front(sampler: str) -> None:
    both = f"trials: 20, sampler: {sampler}, objectives: [val_loss, parameters]"
    made = plan(SWEEP.replace("trials: 20", both))
    found = search(made)
    Simulation(found, lambda t: {s: v - t.flat["n_embd"] / 50 for s, v in valley(t).items()}).run()
    values = [trial.values for trial in optuna_trials(found) if trial.state == TrialState.COMPLETE]
    assert len(values) == 20
    front = [v for v in values if not any(o != v and o[0] <= v[0] and o[1] <= v[1] for o in values)]
    best = found._studies["factorized"].best(20)
    count = made.costs["parameters"]
    assert [count(suggestion.trials[0]) for suggestion in best] == [v[1] for v in sorted(front)]


def test_cells_share_the_budget_evenly_and_each_has_its_winner_confirmed() -> None:
    made = plan(SWEEP, "model.n_embd=2,4,8", "search.trials=12",
                "search.confirm={top: 2, replicates: 3}")  # fmt: skip
    found = search(made)
    simulation = Simulation(found, valley)
    simulation.run()
    tagged = [(trial, tags) for trial, tags in found.known()]
    of_study = Counter((tags["stage"], tags["study"]) for _, tags in tagged)
    assert of_study == {
        (stage, f"factorized n_embd={width}"): count
        for stage, count in (("search", 4), ("confirm", 6)) for width in (2, 4, 8)
    }  # fmt: skip
    for cell in made.studies:
        mine = [(t, tags) for t, tags in tagged if tags["study"] == cell.label]
        searched = {
            t.flat["learning_rate"]: valley(t)[STEPS] for t, g in mine if g["stage"] == "search"
        }
        ranked = sorted(searched, key=searched.__getitem__)
        for rank in (1, 2):
            confirming = [t for t, tags in mine if tags.get("rank") == str(rank)]
            assert {t.flat["learning_rate"] for t in confirming} == {ranked[rank - 1]}
            assert [t.seed for t in confirming] == [1338, 1339, 1340]
    assert set(simulation.keys("finished")) == {trial.key for trial, _ in tagged}


def test_a_configuration_is_judged_by_the_mean_of_its_seeds_at_steps_that_all_have_reached() -> (
    None
):
    made = plan(SWEEP, "replicates=3", ASHA)

    def curve(trial: TrialConfig) -> dict[int, float]:  # one seed alone would mislead
        shift = {1337: -5.0, 1338: 0.0, 1339: 5.0}[trial.seed] * math.sin(
            1e6 * trial.flat["learning_rate"]
        )
        return {step: loss + shift for step, loss in valley(trial).items()}

    found = search(made)
    simulation = Simulation(found, curve)
    simulation.run()
    fates = Counter(event.kind for event in simulation.events)
    assert fates["finished"] + fates["stopped"] == 60
    assert fates["stopped"] >= 15
    assert fates["failed"] == 0
    for frozen in optuna_trials(found):
        suggestion = found._studies["factorized"]._read(frozen)
        for step, mean in frozen.intermediate_values.items():
            assert mean == pytest.approx(sum(curve(t)[step] for t in suggestion.trials) / 3)
        events = [event for event in simulation.events if event.key in suggestion.keys]
        ended = {event.kind for event in events} & {"finished", "stopped"}
        assert len(ended) == 1, "its seeds share its fate"
        if frozen.state == TrialState.PRUNED:
            assert {simulation.reached[key] for key in suggestion.keys} == {frozen.last_step}
    assert simulation.steps < 0.75 * 60 * STEPS


def test_asha_keeps_the_best_half_of_each_rung() -> None:
    found = search(plan(SWEEP, ASHA, "search.trials=40"))
    simulation = Simulation(found, valley)
    simulation.run()
    stops = [event for event in simulation.events if event.kind == "stopped"]
    assert {event.reason for event in stops} <= {
        f"asha: not among the best 1/2 at step {step}" for step in (10, 20, 40, 80)
    }
    assert len(stops) >= 12
    losses = [valley(simulation.queue.trial(key))[STEPS] for key in simulation.keys("finished")]
    assert min(losses) == min(valley(trial)[STEPS] for trial, _ in found.known())


def test_the_median_rule_stops_what_is_worse_than_the_median_of_the_finished() -> None:
    rule = "search.stopping={rule: median, first_step: 50, startup: 4}"
    found = search(plan(SWEEP, rule, "search.trials=30"))
    simulation = Simulation(found, valley, workers=1)
    simulation.run()
    finished: list[str] = []
    for event in simulation.events:
        if event.kind == "finished":
            finished.append(event.key)
        if event.kind == "stopped":
            step = simulation.reached[event.key]
            middle = sorted(valley(simulation.queue.trial(key))[step] for key in finished)
            assert step >= 50
            assert len(finished) >= 4
            assert valley(simulation.queue.trial(event.key))[step] > middle[(len(middle) - 1) // 2]
    assert len(simulation.keys("stopped")) > 5


@pytest.mark.parametrize("workers", [1, 3])
def test_a_driver_that_dies_again_and_again_changes_no_count(tmp_path: Path, workers: int) -> None:
    made = plan(SWEEP, "replicates=2", ASHA, "search.confirm={top: 1, replicates: 2}")
    chance = random.Random(3)
    reached: dict[str, int] = {}
    for _ in range(200):
        outbox = Outbox(tmp_path / "outbox.db", "made-up")
        found = Search(
            studies(made, tmp_path), made.sweep.search, made.sweep.confirm_seeds,
            announce=lambda tagged, outbox=outbox: record(outbox, made, tagged),
        )  # fmt: skip
        outbox.describe({}, {})
        record(outbox, made, list(found.known()))
        records = {trial.key: trial for trial in outbox.trials()}
        queue = Queue(found)
        found.resume(records, lambda key, box=outbox: [e for _, e in box.evaluations(key)], queue)
        for event in queue.pending_events():
            outbox.record(event)
        simulation = Simulation(queue, valley, workers, reached=reached)
        simulation.dies_after = chance.randint(1, 40)
        listen = queue.on_event

        def both(event: TrialEvent, listen=listen, outbox=outbox) -> None:  # type: ignore[no-untyped-def]
            outbox.record(event)
            listen(event)

        queue.on_event = both  # type: ignore[method-assign]
        try:
            simulation.run()
        except DriverDiedError:
            outbox.close()
            continue
        break
    else:
        pytest.fail("it came to no end")
    assert by_state(found).keys() == {"COMPLETE", "PRUNED"}
    assert by_state(found).total() == 20
    trials = outbox.trials()
    assert len(trials) == 20 * 2 + 2
    assert {trial.status for trial in trials} == {"FINISHED", "STOPPED"}
    for trial in trials:
        steps = [evaluation["step"] for _, evaluation in outbox.evaluations(trial.key)]
        assert steps == list(range(10, steps[-1] + 1, 10))
        assert (steps[-1] == STEPS) == (trial.status == "FINISHED")
    for frozen in optuna_trials(found):
        if frozen.state == TrialState.COMPLETE:
            trials_of_it = found._studies["factorized"]._read(frozen).trials
            mean = sum(valley(t)[STEPS] for t in trials_of_it) / 2
            assert frozen.value == pytest.approx(mean)
    outbox.close()


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    first = search(plan(SWEEP, "search.trials=8"), tmp_path)
    Simulation(first, valley).run()
    before = rates(first)
    again = search(plan(SWEEP, "search.trials=14"), tmp_path)
    queue = continued(again)
    waiting = {trial.key for trial in queue.waiting}
    assert waiting == {trial.key for trial, _ in first.known()}, "an empty outbox lacks them"
    simulation = Simulation(queue, valley)
    simulation.run()
    assert len(simulation.keys("finished")) == 14
    assert rates(again)[:8] == before
    assert len(set(rates(again))) == 14


def test_nothing_is_tried_twice_and_a_space_that_is_used_up_ends_the_search() -> None:
    few = SWEEP.replace("{low: 1e-4, high: 1, log: true}", "[0.1, 0.01]").replace(
        "{low: 2, high: 32}", "[2, 3, 4]"
    )
    found = search(plan(few))
    simulation = Simulation(found, valley, workers=3)
    simulation.run()
    assert len(simulation.keys("finished")) == len(set(simulation.keys("finished"))) == 6


def test_constraints_are_kept() -> None:
    text = SWEEP.replace(
        "trials: 20", 'trials: 15, constraints: ["n_embd * learning_rate <= 0.05"]'
    )
    found = search(plan(text))
    Simulation(found, valley).run()
    assert len(rates(found)) == 15
    assert all(t.flat["n_embd"] * t.flat["learning_rate"] <= 0.05 for t, _ in found.known())


def test_a_search_ends_when_nothing_improves_any_more() -> None:
    found = search(plan(SWEEP.replace("trials: 20", "trials: 300, patience: 6")))
    simulation = Simulation(found, valley, workers=1)
    simulation.run()
    losses = [valley(simulation.queue.trial(key))[STEPS] for key in simulation.keys("finished")]
    assert 7 <= len(losses) < 300
    assert losses.index(min(losses)) == len(losses) - 1 - 6


def test_a_time_limit_counts_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("sweeps.search.search.time.monotonic", lambda: clock[0])
    made = plan(SWEEP.replace("trials: 20", "hours: 1"))

    def slow(trial: TrialConfig) -> dict[int, float]:
        clock[0] += 30  # twice for each evaluation
        return valley(trial)

    first = Simulation(search(made, tmp_path), slow, workers=1, dies_after=30)
    with pytest.raises(DriverDiedError):
        first.run()
    clock[0] += 10_000  # nobody searches meanwhile
    started_s, before_s = clock[0], clock[0] - 10_000
    again = search(made, tmp_path)
    Simulation(continued(again), slow, workers=1, reached=first.reached).run()
    assert 3600 <= before_s + clock[0] - started_s <= 3600 + 15 * 60  # the last trial may end
    assert by_state(again).keys() == {"COMPLETE"}


def test_failures_neither_hang_the_search_nor_poison_it() -> None:
    def curve(trial: TrialConfig) -> dict[int, float]:
        if trial.flat["learning_rate"] > 0.1:
            raise ArithmeticError("the loss is nan at step 3")
        if trial.flat["n_embd"] % 4 == 0:
            raise MemoryError("no")
        return valley(trial)

    found = search(plan(SWEEP, "replicates=2", ASHA, "search.trials=40"))
    simulation = Simulation(found, curve)
    simulation.run()
    assert not set(simulation.keys("failed")) & set(simulation.keys("stopped"))
    states = by_state(found)
    assert states.total() == 40
    assert states["COMPLETE"] >= 5
    assert states["FAIL"] >= 2
    for trial in optuna_trials(found):
        high, odd = trial.params["learning_rate"] > 0.1, trial.params["n_embd"] % 4 == 0
        if high:
            assert trial.state == TrialState.PRUNED, "a bad choice, and the sampler is to know it"
        elif odd:
            assert trial.state == TrialState.FAIL, "nothing that the sampler could learn from"
    best = found._studies["factorized"].best(1)[0]
    assert abs(math.log10(best.trials[0].flat["learning_rate"]) + 2) < 0.7


def test_what_diverges_is_avoided_with_several_objectives_too() -> None:
    def curve(trial: TrialConfig) -> dict[int, float]:
        if trial.flat["learning_rate"] > 0.05:
            raise ArithmeticError("the loss is nan at step 3")
        return valley(trial)

    both = "trials: 30, objectives: [val_loss, parameters]"
    found = search(plan(SWEEP.replace("trials: 20", both)))
    Simulation(found, curve, workers=1).run()
    assert by_state(found)["COMPLETE"] >= 20


def test_what_is_in_the_grid_or_another_study_is_not_suggested() -> None:
    space = "search: {model.n_embd: [4, 8], training.learning_rate: [0.1, 0.01]}"
    start = SWEEP.index("arms:")
    end = SWEEP.index("search: {trials")
    arms = f"""arms:
  - model: {{variant: factorized, n_embd: 4}}
  - model: {{variant: factorized}}
    {space}
  - model: {{variant: factorized}}
    grid: {{model.n_embd: [4]}}
    search: {{training.learning_rate: [0.1, 0.01]}}
"""
    made = plan(SWEEP[:start] + arms + SWEEP[end:])
    found = search(made)
    simulation = Simulation(found, valley)
    simulation.queue.put(made.trials)
    simulation.run()
    assert len(simulation.keys("started")) == len(set(simulation.keys("started"))) == 4
    assert by_state(found) == {"COMPLETE": 3}


def test_a_winner_that_is_no_winner_any_more_is_not_confirmed(tmp_path: Path) -> None:
    confirm = "search.confirm={top: 1, replicates: 2}"
    first = search(plan(SWEEP, "search.trials=3", confirm), tmp_path)
    Simulation(first, valley).run()
    assert [tags["stage"] for _, tags in first.known()].count("confirm") == 2
    again = search(plan(SWEEP, "search.trials=25", confirm), tmp_path)
    assert "confirm" not in {tags["stage"] for _, tags in again.known()}, "nobody knows the best"
    Simulation(again, valley).run()
    (best,) = again._studies["factorized"].best(1)
    confirming = [trial for trial, tags in again.known() if tags["stage"] == "confirm"]
    rates_of_both = {trial.flat["learning_rate"] for trial in confirming}
    assert rates_of_both == {best.trials[0].flat["learning_rate"]}


def test_an_exhausted_space_is_not_asked_again(tmp_path: Path) -> None:
    few = SWEEP.replace("{low: 1e-4, high: 1, log: true}", "[0.1]")
    few = few.replace("{low: 2, high: 32}", "[2, 3]")
    Simulation(search(plan(few), tmp_path), valley).run()
    again = search(plan(few), tmp_path)
    asked = len(optuna_trials(again))
    Simulation(continued(again), valley).run()
    assert len(optuna_trials(again)) == asked


def observed(trial: TrialConfig, sweep: str = "earlier") -> Observation:
    settings = {name: canonical(value) for name, value in trial.flat.items()}
    curve = [{"step": s, "val_loss": v, "training_s": 1.0} for s, v in valley(trial).items()]
    return Observation(sweep, trial.key, settings, curve)


def test_an_earlier_sweep_is_learnt_from_once_and_not_repeated() -> None:
    grid = plan(SWEEP.replace("search:\n      model.n_embd: {low: 2, high: 32}\n"
                              "      training.learning_rate: {low: 1e-4, high: 1, log: true}",
                              "grid: {model.n_embd: [8, 64], training.learning_rate: [0.01, 0.1]}")
                .replace("search: {trials: 20, stopping: none, confirm: null}", ""))  # fmt: skip
    observations = {trial.key: observed(trial) for trial in grid.trials}
    made = plan(SWEEP, ASHA)
    (study,) = studies(made)
    assert learn(study, observations) == 2, "n_embd=64 is not in the range"
    assert learn(study, observations) == 0
    assert study.used == 0
    assert list(study.suggestions()) == []
    first, second = optuna_trials([study])
    assert first.value == pytest.approx(valley(grid.trials[0])[STEPS])
    assert first.intermediate_values.keys() == {10, 20, 40, 80}
    assert {first.user_attrs["from"], second.user_attrs["from"]} == {"earlier"}
    found = Search([study], made.sweep.search, [])
    Simulation(found, valley).run()
    assert study.used == 20
    assert not {trial.key for trial, _ in found.known()} & observations.keys()


def test_of_several_seeds_all_must_have_been_observed() -> None:
    made = plan(SWEEP, "replicates=2")
    (study,) = studies(made)
    (arm,) = made.studies[0].arms
    values = {"model.n_embd": 4, "training.learning_rate": 0.01}
    one, two = (arm.configure(values, seed) for seed in (1337, 1338))
    assert learn(study, {one.key: observed(one)}) == 0
    assert learn(study, {t.key: observed(t) for t in (one, two)}) == 1


def test_a_trial_that_stopped_because_of_another_seed_shows_nothing(tmp_path: Path) -> None:
    causes = {"a": EndCause.PRUNED, "b": EndCause.SEED_FAILED, "c": EndCause.DIVERGED}
    with closing(Outbox(tmp_path / "outbox.db", "made-up")) as outbox:
        content = {"name": "made up", "params": {"n_embd": "4"}, "tags": {"stage": "search"}}
        outbox.describe({}, dict.fromkeys(causes, content))
        for key, cause in causes.items():
            kind: Kind = "failed" if cause == EndCause.DIVERGED else "stopped"
            outbox.record(TrialEvent(key, kind, reason="words", cause=cause))
        assert from_outbox(outbox, known=()) == {
            "a": Observation("made-up", "a", {"n_embd": "4"}, [], "words")
        }
        assert unknown_in_outbox(outbox, known=("a",)).keys() == {"b", "c"}


def test_a_lost_journal_is_made_again_from_the_trials_of_the_sweep(tmp_path: Path) -> None:
    first = search(plan(SWEEP, "search.trials=8", ASHA), tmp_path)
    simulation = Simulation(first, valley)
    simulation.run()
    stopped = set(simulation.keys("stopped"))
    observations = {}
    for trial, _ in first.known():
        seen = observed(trial, sweep="made-up")
        steps = [e for e in seen.evaluations if e["step"] <= simulation.reached[trial.key]]
        why = "asha: hopeless" if trial.key in stopped else ""
        observations[trial.key] = Observation("made-up", trial.key, seen.settings, steps, why)
    (tmp_path / "studies.journal").write_text('{"not": "a journal"}\n')
    (study,) = studies(plan(SWEEP, "search.trials=10", ASHA), tmp_path)
    assert (tmp_path / "studies.journal.unusable-1").exists()
    assert learn(study, observations) == 8
    assert study.used == 8
    states = [state for _, state in study.suggestions()]
    assert states.count(TrialState.PRUNED) == len(stopped)


def test_a_line_that_was_cut_and_a_lock_that_was_left_are_no_obstacle(tmp_path: Path) -> None:
    first = search(plan(), tmp_path)
    with pytest.raises(DriverDiedError):
        Simulation(first, valley, dies_after=30).run()
    journal = tmp_path / "studies.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    (tmp_path / "studies.journal.lock").symlink_to(journal)
    again = search(plan(), tmp_path)
    Simulation(continued(again), valley).run()
    assert by_state(again) == {"COMPLETE": 20}


def test_optunas_own_tools_read_the_studies(tmp_path: Path) -> None:
    Simulation(search(plan(), tmp_path), valley).run()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "studies.journal"))
    storage = optuna.storages.JournalStorage(backend)
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert summary.study_name.startswith("made-up: factorized [")
    assert len(study.trials) == 20
    assert study.metric_names == ["val_loss"]
    assert set(study.best_params) == {"n_embd", "learning_rate"}


def test_a_database_keeps_studies_as_well(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/studies.db")
    made = plan(SWEEP, "search.trials=6")
    Simulation(search(made, storage), valley).run()
    again = search(plan(SWEEP, "search.trials=8"), storage)
    Simulation(continued(again), valley).run()
    assert by_state(again) == {"COMPLETE": 8}


def test_only_what_no_search_suggested_is_tested() -> None:
    grid = "arms:\n  - model: {variant: bigram}\n"
    text = SWEEP.replace("arms:\n", grid)
    options = ("search.trials=3", "search.confirm={top: 1, replicates: 2}")
    plain, tested = plan(text, *options), plan(text, *options, "corpus.test=0.05")
    assert {trial.corpus_test for trial in (*tested.trials, *tested.examples)} == {0.05}
    assert all(trial.is_tested for trial in tested.trials)
    assert not any(trial.is_tested for trial in (*plain.trials, *plain.examples, *tested.examples))
    digests = {made.studies[0].digest() for made in (plain, tested)}
    assert len(digests) == 2
    for made, is_tested in ((plain, False), (tested, True)):
        searching = search(made)
        Simulation(Queue(searching), valley).run()
        stages = Counter((tags["stage"], trial.is_tested) for trial, tags in searching.known())
        assert stages == {("search", False): 3, ("confirm", is_tested): 2}
