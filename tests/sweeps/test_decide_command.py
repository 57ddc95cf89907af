"""`sweeps run` and `sweeps decide` of sweeps that decide claims, with simulated training."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from analysis import check_claims, load_trials
from sweeps.cli.main import main
from sweeps.records.outbox import Outbox
from tests.sweeps.deciding import STEPS, normal
from tests.sweeps.simulation import DriverDiedError, Simulation
from trainables.config import TrialConfig
from trainables.data.verse import write_play

ARMS = f"""
name: made-up
corpus: file:play.txt
training: {{max_steps: {STEPS}, eval_every: {STEPS}, batch_size: 4, block_size: 8}}
arms:
  - model: {{variant: attention, n_embd: 8}}
    grid: {{model.pe_type: [rope, sinpe, randn]}}
"""
SWEEP = f"{ARMS}decide: {{claims: claims.yaml}}\n"
ROPE = """
claims:
  - claim: rope is better than sinpe
    where: {variant: attention}
    factor: pe_type
    order: [rope, sinpe]
"""
RANDN = """
claims:
  - claim: randn is better than rope
    factor: pe_type
    order: [randn, rope]
"""
SEARCH = f"""
name: made-up
corpus: file:play.txt
training: {{max_steps: {STEPS}, eval_every: {STEPS}, batch_size: 4, block_size: 8}}
arms:
  - model: {{variant: attention, n_embd: 8}}
    grid: {{model.pe_type: [rope, sinpe]}}
    search: {{training.learning_rate: {{low: 1e-3, high: 1e-1, log: true}}}}
  - model: {{variant: bigram}}
search: {{trials: 6, stopping: none, confirm: {{top: 1, replicates: 2}}}}
decide: {{claims: claims.yaml, max_seeds: 12}}
"""
Sweeps = Callable[..., Result]


@pytest.fixture
def sweeps(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """Run a command in a folder with a sweep and its claims; the driver may die after events."""
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEPS_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    Path("play.txt").write_text(write_play(characters=20_000))
    Path("sweep.yaml").write_text(SWEEP)
    Path("claims.yaml").write_text(ROPE)
    Path("state").mkdir()
    shutil.copy(empty_store, "state/mlflow.db")
    losses = normal()

    def curve(trial: TrialConfig) -> dict[int, float]:
        return {STEPS: losses(trial)}

    def run(command: str, *arguments: str, dies_after: int | None = None) -> Result:
        def train(sweep_run: Any, queue: Any) -> None:
            listen = queue.on_event
            queue.on_event = lambda event: (sweep_run.outbox.record(event), listen(event))
            Simulation(queue, curve, dies_after=dies_after).run()

        monkeypatch.setattr("sweeps.execution.service.train", train)
        done = CliRunner().invoke(main, [command, "sweep.yaml", *arguments])
        if dies_after is not None:
            assert isinstance(done.exception, DriverDiedError)
        return done

    return run


def seeds() -> dict[str, int]:
    """The finished trials of each encoding, by MLflow."""
    table = load_trials("made-up").finished
    return {
        str(name): len(rows) for name, rows in table[table["stage"] != "search"].groupby("pe_type")
    }


def sweep_run() -> Any:
    client = MlflowClient(f"sqlite:///{Path.cwd()}/state/mlflow.db")
    experiment = client.get_experiment_by_name("made-up")
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'sweep'")
    return run


def artifact(name: str) -> Path:
    return Path(sweep_run().info.artifact_uri.removeprefix("file://")) / name


def test_a_sweep_ends_with_its_claims_decided_and_mlflow_has_the_evidence(sweeps: Sweeps) -> None:
    done = sweeps("run")
    assert done.exit_code == 0, done.output
    assert "made-up: 0 done, 9 to run" in done.output
    trials = len(load_trials("made-up").finished)
    assert f"claims  1 claim: 1 decided, 0 open after {trials} trials" in done.output
    assert "claims  1 SUPPORTED (e-value " in done.output
    assert 3 < seeds()["rope"] == seeds()["sinpe"] < 30
    assert seeds()["randn"] == 3

    run = sweep_run()
    (history,) = json.loads(run.data.tags["claims_history"])
    assert history["sha256"] == hashlib.sha256(ROPE.encode()).hexdigest()
    assert (history["file"], history["finished"], history["looks"]) == ("claims.yaml", 0, 0)
    assert run.data.tags["claims_sha256"] == history["sha256"]
    assert artifact("claims.yaml").read_text() == ROPE
    client = MlflowClient(f"sqlite:///{Path.cwd()}/state/mlflow.db")
    evidence = client.get_metric_history(run.info.run_id, "evidence/claim 1")
    looks = pd.read_csv(artifact("looks.csv"))
    assert [metric.step for metric in evidence] == looks["finished"].tolist()
    assert [metric.value for metric in evidence] == pytest.approx(looks["evidence"].tolist())
    assert looks["verdict"].iloc[-1] == "SUPPORTED"
    assert looks["verdict"].iloc[0] == "UNDERPOWERED"
    first_ms = min(each.info.start_time for each in client.search_runs([run.info.experiment_id]))
    assert pd.Timestamp(history["since"]).timestamp() * 1000 <= first_ms + 1000
    assert {"claims", "max_seeds", "error"} <= json.loads(run.data.tags["decide"]).keys()


def test_analysis_gives_the_verdict_of_the_sweep(sweeps: Sweeps) -> None:
    sweeps("run")
    (found,) = check_claims(load_trials("made-up"), "claims.yaml", anytime=True)
    assert found.verdict == "SUPPORTED"
    last = pd.read_csv(artifact("looks.csv")).iloc[-1]
    assert 1 / found.decision.supports == pytest.approx(10 ** last["evidence"])


def test_a_finished_sweep_is_decided_further_and_run_again_as_it_was(sweeps: Sweeps) -> None:
    Path("sweep.yaml").write_text(ARMS)
    assert sweeps("run").exit_code == 0
    assert seeds() == {"rope": 1, "sinpe": 1, "randn": 1}
    refused = sweeps("decide")
    assert refused.exit_code == 2
    assert "sweep.yaml names no claims to decide; give --claims FILE" in refused.output
    done = sweeps("decide", "--claims", "claims.yaml", "--max-seeds", "4")
    assert done.exit_code == 0, done.output
    assert "made-up: 3 done, 6 to run" in done.output
    assert "claims  1 open (e-value " in done.output
    assert "at most 4 seeds of a configuration, error 0.05" in done.output
    assert seeds() == {"rope": 4, "sinpe": 4, "randn": 3}
    further = sweeps("decide", "--claims", "claims.yaml")
    assert "claims  1 SUPPORTED" in further.output
    found = seeds()
    assert found["rope"] > 4
    again = sweeps("decide", "--claims", "claims.yaml")
    assert f"made-up: {sum(found.values())} done\n" in again.output
    plain = sweeps("run", "replicates=3")
    assert plain.exit_code == 0, plain.output
    assert seeds() == found
    fewer = sweeps("run")  # of one seed: those that `decide` began with stay as well
    assert fewer.exit_code == 0, fewer.output
    assert seeds() == found


def test_killed_at_any_event_it_goes_on(sweeps: Sweeps) -> None:
    for dies_after in (2, 11, 30, 5, 8):
        sweeps("run", dies_after=dies_after)
    done = sweeps("run")
    assert done.exit_code == 0, done.output
    assert "claims  1 SUPPORTED" in done.output
    counts = seeds()
    assert counts["rope"] == counts["sinpe"]
    with closing(Outbox(Path("state/sweeps/made-up/outbox.db"), "made-up")) as outbox:
        assert {record.status for record in outbox.trials()} == {"FINISHED"}
        looks = list(outbox.looks.looks().values())
    finished = [look.finished for look in looks]
    assert finished == sorted(set(finished))
    assert pd.read_csv(artifact("looks.csv"))["finished"].tolist() == finished


def test_other_claims_are_kept_beside_the_first_ones(sweeps: Sweeps) -> None:
    sweeps("run")
    first = sweep_run().data.tags["claims_history"]
    trials = len(load_trials("made-up").finished)
    Path("claims.yaml").write_text(RANDN)
    done = sweeps("run")
    assert done.exit_code == 0, done.output
    assert f"other claims than before, now that {trials} trials of the sweep are finished" in (
        done.output
    )
    history = json.loads(sweep_run().data.tags["claims_history"])
    assert history[:1] == json.loads(first)
    assert (history[1]["file"], history[1]["finished"]) == ("claims-2.yaml", trials)
    assert history[1]["looks"] > 0
    assert artifact("claims.yaml").read_text() == ROPE
    assert artifact("claims-2.yaml").read_text() == RANDN
    Path("claims.yaml").write_text(ROPE)
    assert "other claims" not in sweeps("run").output
    assert len(json.loads(sweep_run().data.tags["claims_history"])) == 2


def test_a_lost_outbox_does_not_change_when_the_claims_were_made(sweeps: Sweeps) -> None:
    sweeps("run")
    first, counts = sweep_run().data.tags["claims_history"], seeds()
    Path("state/sweeps/made-up/outbox.db").unlink()
    done = sweeps("run")
    assert done.exit_code == 0, done.output
    assert f"made-up: {sum(counts.values())} done\n" in done.output
    assert sweep_run().data.tags["claims_history"] == first
    assert seeds() == counts


def test_the_winners_of_a_search_get_further_seeds(sweeps: Sweeps) -> None:
    Path("sweep.yaml").write_text(SEARCH)
    done = sweeps("run")
    assert done.exit_code == 0, done.output
    assert "claims  1 SUPPORTED (" in done.output
    table = load_trials("made-up").table
    confirming = table[table["stage"] == "confirm"]
    counts = confirming.groupby("pe_type")["seed"].nunique()
    assert 2 < counts["rope"] == counts["sinpe"] <= 12
    assert not set(confirming["seed"]) & set(table[table["stage"] == "search"]["seed"])
    assert set(confirming.groupby("pe_type")["learning_rate"].nunique()) == {1}
    assert (table["variant"] == "bigram").sum() == 3  # one seed of the search, two fresh ones
    again = sweeps("run")
    assert again.exit_code == 0, again.output
    assert f"made-up: {len(table)} done\n" in again.output
    assert len(load_trials("made-up").table) == len(table)


def test_the_plan_says_how_it_begins_and_what_it_still_takes(sweeps: Sweeps) -> None:
    plan = sweeps("plan", "decide.trials=40")
    assert plan.exit_code == 0, plan.output
    assert "begins  3 configurations x 3 seeds; then further seeds decide 1 claim" in plan.output
    assert "limits  at most 30 seeds of a configuration, 40 trials, error 0.05" in plan.output
    assert "claims  " not in plan.output
    sweeps("run", "decide.max_seeds=4")
    plan = sweeps("plan")
    assert "claims  1 claim: 0 decided, 1 open; if means and spreads stay as they are, about " in (
        plan.output
    )
    assert "done    11 of 11 trials are done" in plan.output
    sweeps("run")
    assert "claims  1 claim: 1 decided, 0 open; if means and" in sweeps("plan").output


def test_the_plan_forecasts_from_the_trials_of_earlier_sweeps(sweeps: Sweeps) -> None:
    piloted = sweeps("run", "name=pilot", "seed=1", "replicates=4", "decide=null")
    assert piloted.exit_code == 0, piloted.output
    plan = sweeps("plan")
    assert plan.exit_code == 0, plan.output
    (line,) = (line for line in plan.output.splitlines() if line.startswith("claims  "))
    before = "claims  1 claim: 0 decided, 1 open; by the trials of pilot alone, about "
    assert line.startswith(before)
    forecast = int(line.removeprefix(before).split()[0])
    assert forecast % 2 == 0, "both sides of a pair"
    assert 2 <= forecast <= 54
    assert "by the trials of" not in sweeps("plan", "model.n_embd=16").output
    limited = sweeps("plan", "decide.trials=11").output
    assert "about 2 further trials" in limited
    sweeps("run", "decide.max_seeds=4")
    assert "by the trials of" not in sweeps("plan").output


def test_the_plan_of_a_search_says_that_there_is_no_forecast(sweeps: Sweeps) -> None:
    Path("sweep.yaml").write_text(SEARCH)
    plan = sweeps("plan")
    assert plan.exit_code == 0, plan.output
    assert (
        "claims  no forecast, as the search has yet to find what they compare; at most 10 further"
        " seeds of each of 3 winners and other configurations"
    ) in plan.output
