"""What a sweep planned is in the store from its start on, whatever ends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import AnalysisError, judged, load_trials
from analysis.trials.mlflow_store import PLAN
from sweeps.planning.plan import Plan
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.server.ui import mlflow_ui
from sweeps.tracking.description import describe_sweep, describe_trial
from sweeps.tracking.sweep_runs import SweepRuns
from tests.sweeps.running import SweepFolder
from trainables.config import RESULT_VERSION
from trainables.persistence.storage import SharedFolder

SEARCH = """
name: planned
corpus: file:play.txt
training: {max_steps: 20, eval_every: 10, batch_size: 8}
arms:
  - model: {variant: bigram}
    grid: {training.block_size: [8, 16]}
  - model: {variant: attention, n_embd: 8}
    grid: {model.pe_type: [rope, randn]}
    search:
      training.learning_rate: {low: 1e-3, high: 1e-1, log: true}
      training.schedule: {choices: [constant, cosine]}
      training.warmup_steps: {low: 0, high: 10, when: {training.schedule: [cosine]}}
search: {trials: 4, confirm: {top: 2, replicates: 3}}
"""
TWO_ARMS = """
name: planned
corpus: file:play.txt
arms:
  - model: {variant: factorized, n_embd: 8}
    search: {training.learning_rate: {low: 1e-3, high: 1e-1, log: true}}
  - model: {variant: attention, n_embd: 8, pe_type: rope}
    search: {training.learning_rate: {low: 1e-3, high: 1e-1, log: true}}
search: {trials: 4, confirm: {top: 1, replicates: 2}}
"""


def plan_of(folder: Path, text: str = SEARCH) -> Plan:
    return SweepFolder(folder, text).plan


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@contextmanager
def described(folder: Path, plan: Plan) -> Iterator[Outbox]:
    """The outbox of a sweep that is about to begin."""
    with closing(Outbox(folder / "outbox.db", plan.sweep.name)) as outbox:
        describe(outbox, plan)
        yield outbox


def describe(outbox: Outbox, plan: Plan) -> None:
    trials = {trial.key: describe_trial(plan, trial) for trial in plan.trials}
    outbox.describe(describe_sweep(plan), trials)


def send(uri: str, outbox: Outbox) -> None:
    folder = outbox.path.parent
    artifacts = None if uri.startswith("http") else folder / "artifacts"
    runs = SweepRuns(uri, outbox, artifacts, SharedFolder(folder), folder / "reports")
    runs.send_sweep(outbox.sweep)
    for key in outbox.unsent():
        record = outbox.trial(key)
        assert record is not None
        runs.send_trial(record)


def begin(outbox: Outbox, key: str) -> None:
    outbox.record(TrialEvent(key, "started", time_ms=1_000))


def artifact(uri: str) -> Path:
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "planned"]
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'sweep'")
    return Path(run.info.artifact_uri.removeprefix("file://")) / PLAN


def test_the_store_has_the_grid_and_what_will_confirm_each_study(uri: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with described(tmp_path, plan) as outbox:
        begin(outbox, plan.trials[0].key)
        send(uri, outbox)
    trials = load_trials("planned", uri)
    assert len(trials.table) == 1
    rows = trials.planned
    assert rows is not None
    assert set(rows["status"]) == {"WAITING"}
    assert rows["val_loss"].isna().all()
    grid = rows[rows["stage"] == ""]
    assert set(grid["key"]) == {trial.key for trial in plan.trials}
    assert sorted(zip(grid["block_size"], grid["seed"], strict=True)) == [
        (block, seed) for block in (8, 16) for seed in (1337, 1338, 1339, 1340)
    ]
    winners = rows[rows["stage"] == "confirm"]
    assert sorted(zip(winners["study"], winners["seed"], strict=True)) == [
        (f"attention pe_type={pe_type}", seed)
        for pe_type in ("randn", "rope")
        for seed in (1338, 1339, 1340)
    ]
    assert set(winners["arm"]) == {1}
    assert set(winners["picked"]) == {1}
    tuned = ["learning_rate", "schedule", "warmup_steps"]
    assert winners[tuned].isna().all(axis=None)
    example = plan.examples[0].flat
    held = {name for name in example if name not in (*tuned, "seed", "pe_type")}
    assert {name: set(winners[name]) for name in held} == {name: {example[name]} for name in held}


def test_every_planned_trial_has_the_params_of_its_run(uri: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with described(tmp_path, plan) as outbox:
        for trial in plan.trials:
            begin(outbox, trial.key)
        send(uri, outbox)
    trials = load_trials("planned", uri)
    assert trials.planned is not None
    names = ["variant", "block_size", "seed", "learning_rate", "corpus", "eval_batches",
             "corpus_digest", "result_version"]  # fmt: skip
    both = [
        rows.set_index("key")[names].loc[[trial.key for trial in plan.trials]]
        for rows in (trials.table, trials.planned)
    ]
    assert both[0].equals(both[1])
    assert set(trials.table["result_version"]) == {str(RESULT_VERSION)}
    waiting = judged(trials).table.query("status == 'WAITING'")
    assert len(waiting) == 6  # the winners


def test_of_a_study_of_several_arms_the_plan_has_what_they_share(uri: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO_ARMS)
    (first, second) = describe_sweep(plan)["studies"]
    assert (first["params"]["seed"], second["params"]["seed"]) == ("1338", "1339")
    assert first["params"]["n_embd"] == "8"
    assert not {"variant", "pe_type", "learning_rate"} & first["params"].keys()
    assert "arm" not in first["tags"]


def test_another_plan_under_the_same_name_takes_its_place(uri: str, tmp_path: Path) -> None:
    grid = SEARCH.partition("  - model: {variant: attention")[0]
    for blocks in ("8, 16", "8, 32, 64", "8"):
        plan = plan_of(tmp_path, grid.replace("8, 16", blocks))
        with described(tmp_path, plan) as outbox:
            begin(outbox, plan.trials[0].key)
            send(uri, outbox)
        trials = load_trials("planned", uri)
        assert trials.planned is not None
        assert ", ".join(map(str, trials.planned["block_size"])) == blocks
        assert len(judged(trials).table) == len(plan.trials)


def test_a_sweep_of_an_earlier_version_has_its_plan_when_it_runs_again(
    uri: str, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path)
    with described(tmp_path, plan) as outbox:
        content = {k: v for k, v in describe_sweep(plan).items() if k != "studies"}
        outbox.describe(content, {plan.trials[0].key: describe_trial(plan, plan.trials[0])})
        begin(outbox, plan.trials[0].key)
        outbox.record(TrialEvent(plan.trials[0].key, "finished", time_ms=2_000))
        send(uri, outbox)
        trials = load_trials("planned", uri)
        assert (trials.planned, trials.plan_known) == (None, False)
        describe(outbox, plan)
        send(uri, outbox)
    assert load_trials("planned", uri).plan_known


def test_a_plan_reaches_a_server_that_keeps_the_artifacts(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the server keeps them
    plan = plan_of(tmp_path / "sweep")
    with mlflow_ui(uri, log_file=tmp_path / "server.log") as url:
        with described(tmp_path, plan) as outbox:
            begin(outbox, plan.trials[0].key)
            send(url, outbox)
        trials = load_trials("planned", url)
    assert trials.planned is not None
    assert len(trials.planned) == 8 + 6


@pytest.mark.parametrize("damage", ["cut", "gone", "[1]", "{}", '[{"params": 1}]'])
def test_a_plan_that_cannot_be_read_is_said(
    damage: str, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of(tmp_path)
    with described(tmp_path, plan) as outbox:
        begin(outbox, plan.trials[0].key)
        send(uri, outbox)
    path = artifact(uri)
    assert len(json.loads(path.read_text())) == 8 + 6
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text()[:-9] if damage == "cut" else damage)
    trials = load_trials("planned", uri)
    assert (len(trials.table), trials.plan_known) == (1, False)
    assert "the plan of the sweep cannot be read" in caplog.text


def test_a_run_that_was_deleted_in_the_store_is_one_that_never_began(
    uri: str, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path)
    with described(tmp_path, plan) as outbox:
        for trial in plan.trials:
            begin(outbox, trial.key)
        send(uri, outbox)
    (gone, *_) = load_trials("planned", uri).table.query("seed == 1338").to_dict("records")
    MlflowClient(uri).delete_run(gone["run_id"])
    trials = load_trials("planned", uri)
    assert len(trials.table) == 7
    table = judged(trials).table
    assert list(table.loc[table["key"] == gone["key"], "status"]) == ["WAITING"]


# With Ray.

KILLED = """
name: killed
corpus: file:play.txt
training: {max_steps: 2000, eval_every: 50, batch_size: 8}
replicates: 2
arms:
  - model: {variant: bigram}
    grid: {training.block_size: [8, 16, 32, 64]}
resources: {max_concurrent: 1}
"""


@pytest.mark.faults
def test_a_sweep_that_is_killed_in_its_first_trials_has_its_plan_and_decides_nothing(
    tmp_path: Path,
) -> None:
    folder = SweepFolder(tmp_path, KILLED)
    driver = folder.start()

    def has_begun() -> bool:
        try:
            return not load_trials("killed", f"sqlite:///{tmp_path}/state/mlflow.db").table.empty
        except AnalysisError:  # no store, no experiment, no trial so far
            return False

    driver.wait_for(has_begun)
    driver.kill()
    trials = load_trials("killed", str(folder.client.tracking_uri))
    assert 1 <= len(trials.table) < 8
    assert len(judged(trials).table) == 8
    claims = tmp_path / "claims.yaml"
    claims.write_text("claims: [{claim: x, factor: block_size, best: 32}]")
    done = folder.run("conclusions", "killed", "--claims", "claims.yaml", name="analysis")
    assert (done.returncode, done.stderr) == (1, "")
    assert "UNDERPOWERED  x" in done.stdout
    assert f"{8 - len(trials.table)} planned trials have not begun" in done.stdout


def columns_of(plan: Plan) -> list[str]:
    """Of the ranking view."""
    tag = describe_sweep(plan)["views"]["mlflow.sharedViewState.ranking"]
    columns: list[str] = json.loads(json.loads(tag)["state"])["selectedColumns"]
    return columns


def test_the_ranking_of_a_search_shows_where_a_trial_comes_from(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    columns = columns_of(plan)
    wanted = {"params.`variant`", "params.`pe_type`", "params.`seed`"} & set(columns)
    assert {"params.`pe_type`", "params.`seed`"} <= wanted
    assert columns[-4:] == ["tags.`stage`", "tags.`rank`", "tags.`stopped`", "tags.`study`"]


ONE_STUDY = """
name: planned
corpus: file:play.txt
arms:
  - model: {variant: attention, n_embd: 8}
    search:
      training.learning_rate: {low: 1e-3, high: 1e-1, log: true}
      model.pe_type: [sinpe, rope]
search: {trials: 4}
"""


def test_the_trials_of_one_study_have_the_colour_of_a_text_that_it_tunes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ONE_STUDY)
    kinds = {trial.flat["pe_type"]: plan.names.kind(trial) for trial in plan.examples}
    assert kinds == {"sinpe": 0, "rope": 1}


def test_trials_have_the_colour_of_their_words_and_winners_say_so_first(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    trials = (*plan.trials, *plan.examples)
    colours: dict[object, set[str]] = {}
    for trial in trials:
        kind = (trial.model.variant, trial.flat.get("pe_type"))
        colours.setdefault(kind, set()).add(describe_trial(plan, trial)["tags"]["mlflow.runColor"])
    assert len(colours) >= 3
    assert {len(found) for found in colours.values()} == {1}
    assert len(set.union(*colours.values())) == len(colours)
    example = plan.examples[0]
    name = describe_trial(plan, example, {"stage": "confirm", "rank": "1"})["name"]
    assert name == f"confirm {example.seed}: {plan.names.run_name(example)}"
