"""`sweeps run` as a user runs it: a real Ray, a real MLflow store, and what is left in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from analysis.command import main as analysis
from sweeps.command import main as sweeps
from sweeps.plan import Plan
from sweeps.service import make_plan
from sweeps.state import State
from trainables.training import Evaluation, Splits, initial_state, train
from trainables.verse import write_play

SWEEP = """
name: small
corpus: file:play.txt
training: {max_steps: 30, eval_every: 10, batch_size: 16}
arms:
  - model: {variant: count}
  - model: {variant: "cubic:Cubic", power: 3}
  - model: {variant: attention, n_embd: 16}
    grid: {model.pe_type: [rope, sinpe]}
  - model: {variant: bigram}
    grid: {training.learning_rate: [1e-2, 1e30]}
"""
CUBIC = '''
from dataclasses import dataclass
from bigram_models import BigramTable

class Cubic(BigramTable):
    """A model of the user's own: a bigram table raised to a power."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        power: int

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.power = config.power

    def forward(self, ids_BT):
        return super().forward(ids_BT) ** self.power
'''
BIN = Path(sys.executable).parent
DIVERGES = "1e+30"


def command(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    return subprocess.run(
        [str(BIN / name), *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip


@dataclass
class Study:
    """A folder in which the sweep was run, and what the command said."""

    folder: Path
    result: subprocess.CompletedProcess[str]
    plan: Plan

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=f"sqlite:///{self.folder}/state/mlflow.db")

    def runs(self, role: str) -> list[Any]:
        experiment = self.client.get_experiment_by_name("small")
        return list(self.client.search_runs([experiment.experiment_id], f"tags.role = '{role}'"))

    def by_key(self) -> dict[str, Any]:
        return {run.data.tags["key"]: run for run in self.runs("trial")}

    def shown_table(self, parent: Any) -> pd.DataFrame:
        """The table that the UI shows for the parent."""
        logged = json.loads(parent.data.tags["mlflow.loggedArtifacts"])
        assert logged == [{"path": "ranking.json", "type": "table"}]
        with tempfile.TemporaryDirectory() as folder:
            path = self.client.download_artifacts(parent.info.run_id, "ranking.json", folder)
            return pd.read_json(path, orient="split")

    def history(self, run: Any, metric: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(run.info.run_id, metric)
        return sorted((one.step, one.value) for one in found)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("a study with spaces")
    (folder / "play.txt").write_text(write_play(characters=20_000))
    (folder / "sweep.yaml").write_text(SWEEP)
    (folder / "cubic.py").write_text(CUBIC)
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        plan = make_plan("sweep.yaml", [], State(folder / "state"))
        yield Study(folder, command("sweeps", "run", "sweep.yaml", cwd=folder), plan)
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)


def in_process(plan: Plan, key: str) -> list[Evaluation]:
    """The same trial without Ray, with the thread that a trial has."""
    trial = next(trial for trial in plan.trials if trial.key == key)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state = initial_state(trial, plan.corpus.vocab_size)
        splits = Splits.of(plan.corpus, torch.device("cpu"))
        return list(train(state, splits, trial.training, trial.seed))
    finally:
        torch.set_num_threads(threads)


def is_diverging(run: Any) -> bool:
    return str(run.data.params["learning_rate"]) == DIVERGES


def test_one_failed_trial_fails_the_command_and_nothing_else(study: Study) -> None:
    assert study.result.returncode == 1, study.result.stdout + study.result.stderr
    assert "small: 0 done, 6 to run" in study.result.stdout
    assert "failed  1 x TrainingDivergedError: the loss is" in study.result.stdout
    assert "again   sweeps run sweep.yaml" in study.result.stdout


def test_the_output_is_ours_alone(study: Study) -> None:
    assert study.result.stderr == ""
    for noise in ("ray", "Trial ", "alembic", "INFO", "WARNING", "Traceback"):
        assert noise not in study.result.stdout


def test_every_trial_is_one_run_under_the_parent_with_its_true_status(study: Study) -> None:
    (parent,) = study.runs("sweep")
    runs = study.runs("trial")
    assert {run.data.tags["key"] for run in runs} == {trial.key for trial in study.plan.trials}
    assert len(runs) == len(study.plan.trials)
    assert parent.info.status == "FAILED"
    for run in runs:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == ("FAILED" if is_diverging(run) else "FINISHED")


def test_a_diverged_trial_names_the_step_and_has_no_loss(study: Study) -> None:
    (run,) = (run for run in study.runs("trial") if is_diverging(run))
    assert "at step" in run.data.tags["failure"]
    assert not {"val_loss", "best_val_loss"} & set(run.data.metrics)


def test_curves_are_those_of_the_same_trial_without_ray_bit_for_bit(study: Study) -> None:
    for key, run in study.by_key().items():
        if is_diverging(run):
            continue
        expected = in_process(study.plan, key)
        assert study.history(run, "val_loss") == [(e.step, e.val_nats) for e in expected]
        assert study.history(run, "train_loss") == [(e.step, e.train_nats) for e in expected]
        assert study.history(run, "best_val_loss") == [(e.step, e.best_val_nats) for e in expected]


def test_params_tags_and_names_describe_the_trial(study: Study) -> None:
    for trial in study.plan.trials:
        run = study.by_key()[trial.key]
        assert run.data.params == {
            name: repr(value) if isinstance(value, float) else str(value)
            for name, value in trial.flat.items()
        }
        tags = run.data.tags
        assert (tags["sweep"], tags["variant"]) == ("small", trial.model.variant)
        assert (tags["seed"], tags["corpus_digest"]) == ("1337", study.plan.corpus.digest)
        assert tags["code_version"].startswith("0.")
        assert run.info.run_name == study.plan.run_name(trial)
    names = {run.info.run_name for run in study.runs("trial")}
    assert {"attention rope 16 0.01", "bigram 1e+30", "cubic:Cubic 3 0.01"} <= names


def test_the_corpus_is_a_dataset_input(study: Study) -> None:
    for run in study.runs("trial"):
        (used,) = run.inputs.dataset_inputs
        assert used.dataset.name == "file:play.txt"
        assert study.plan.corpus.digest.startswith(used.dataset.digest)
        assert json.loads(used.dataset.profile)["vocabulary"] == study.plan.corpus.vocab_size


def test_a_finished_run_has_a_note_a_sample_and_weights_with_their_configuration(
    study: Study,
) -> None:
    for key, run in study.by_key().items():
        note = run.data.tags["mlflow.note.content"]
        if is_diverging(run):
            assert "Failed: TrainingDivergedError" in note
            continue
        assert f"{run.data.metrics['val_loss']:.5f}" in note
        folder = Path(run.info.artifact_uri.removeprefix("file://").replace("%20", " "))
        configuration = json.loads((folder / "model.json").read_text())
        assert configuration["key"] == key
        assert len((folder / "sample.txt").read_text()) == 500
        assert (folder / "weights.safetensors").stat().st_size > 100


def test_the_parent_has_the_ranking_as_csv_markdown_and_table(study: Study) -> None:
    (parent,) = study.runs("sweep")
    folder = Path(parent.info.artifact_uri.removeprefix("file://").replace("%20", " "))
    ranking = pd.read_csv(folder / "ranking.csv")
    assert list(ranking["val_loss"]) == sorted(
        run.data.metrics["val_loss"] for run in study.runs("trial") if not is_diverging(run)
    )
    assert (folder / "ranking.md").read_text().startswith("|   rank | variant")
    assert list(study.shown_table(parent)["run_id"]) == list(ranking["run_id"])


def test_the_experiment_opens_on_its_own_views(study: Study) -> None:
    tags = study.client.get_experiment_by_name("small").tags
    state = json.loads(json.loads(tags["mlflow.sharedViewState.ranking"])["state"])
    assert "params.`pe_type`" in state["selectedColumns"]
    assert "tags.sweep = 'small'" in state["searchFilter"]
    curves = json.loads(json.loads(tags["mlflow.sharedViewState.curves"])["state"])
    assert curves["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "pe_type"}]


def test_rankings_reads_the_same_from_the_store(study: Study) -> None:
    arguments = ["rankings", "small", "--out", str(study.folder / "tables")]
    result = CliRunner().invoke(analysis, arguments)
    assert result.exit_code == 0, result.output
    assert "not ranked: 1 trials" in result.output
    written = (study.folder / "tables" / "ranking.csv").read_bytes()
    assert written == (study.folder / "state/reports/small/ranking.csv").read_bytes()
    refused = CliRunner().invoke(analysis, ["rankings", "nowhere"])
    assert refused.exit_code == 2
    assert "no experiment 'nowhere'; there are: " in refused.output


def test_sample_writes_text_from_a_finished_trial(study: Study) -> None:
    def sample(*arguments: str) -> Result:
        return CliRunner().invoke(sweeps, ["sample", *arguments])

    rope = next(t.key for t in study.plan.trials if t.flat.get("pe_type") == "rope")
    names = (rope, study.by_key()[rope].info.run_id, "small/best")
    texts = [sample(name, "--prompt", "The ", "--length", "40") for name in names]
    assert [text.exit_code for text in texts] == [0, 0, 0], texts
    assert texts[0].output == texts[1].output
    assert len(texts[0].output) == 4 + 40 + 1
    assert texts[0].output.startswith("The ")
    failed = next(key for key, run in study.by_key().items() if is_diverging(run))
    for arguments in (["absent"], ["small/best", "--prompt", "é"], ["x/best"], [failed]):
        refused = sample(*arguments)
        assert refused.exit_code == 2, arguments
        assert refused.output.startswith("sweeps: ")


def test_running_again_runs_only_what_is_not_finished(study: Study) -> None:
    before = study.by_key()
    result = command("sweeps", "run", "sweep.yaml", cwd=study.folder)
    assert result.returncode == 1
    assert "small: 5 done, 1 to run" in result.stdout
    after = study.by_key()
    assert len(study.runs("trial")) == len(before)
    assert {key: run.info.run_id for key, run in after.items()} == {
        key: run.info.run_id for key, run in before.items()
    }
    (parent,) = study.runs("sweep")
    assert len(study.shown_table(parent)) == 5


LONG = """
name: one
corpus: file:play.txt
training: {max_steps: 4000, eval_every: 200}
arms: [{model: {variant: attention, n_embd: 32}}]
"""


@pytest.fixture
def long_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sweep of one trial that takes some seconds."""
    (tmp_path / "play.txt").write_text(write_play(characters=200_000))
    (tmp_path / "one.yaml").write_text(LONG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start_and_wait_for_a_checkpoint(folder: Path) -> subprocess.Popen[str]:
    driver = subprocess.Popen(
        [str(BIN / "sweeps"), "run", "one.yaml"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoints = "state/sweeps/one/trials/*/checkpoint.safetensors"
    wait_for(lambda: bool(list(folder.glob(checkpoints))), driver)
    return driver


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert driver.poll() is None, "the sweep ended too early"
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def only_run(folder: Path) -> tuple[Any, list[tuple[int, float]]]:
    """The one trial's run, and its val_loss by step."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/state/mlflow.db")
    experiment = client.get_experiment_by_name("one").experiment_id
    (run,) = client.search_runs([experiment], "tags.role = 'trial'")
    history = client.get_metric_history(run.info.run_id, "val_loss")
    return run, [(metric.step, metric.value) for metric in history]


def undisturbed(folder: Path) -> list[tuple[int, float]]:
    plan = make_plan("one.yaml", [], State(folder / "state"))
    return [(e.step, e.val_nats) for e in in_process(plan, plan.trials[0].key)]


def test_a_trial_survives_its_worker_and_an_interrupted_driver(long_sweep: Path) -> None:
    driver = start_and_wait_for_a_checkpoint(long_sweep)
    workers = [pid for pid, title in descendants(driver.pid) if "ResourceTrainable" in title]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(only_run(long_sweep)[1]) >= 3, driver)  # it went on
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 130, output
    assert "again   sweeps run one.yaml" in output
    run, history = only_run(long_sweep)
    assert run.info.status == "KILLED"
    expected = undisturbed(long_sweep)
    assert 3 <= len(history) < len(expected)

    again = command("sweeps", "run", "one.yaml", cwd=long_sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    run, history = only_run(long_sweep)
    assert run.info.status == "FINISHED"
    # The evaluation that was under way when the driver stopped may be missing from the curve.
    assert set(history) <= set(expected)
    assert len(set(history)) == len(history)  # it went on, not from the start
    assert history[-1] == expected[-1]
    assert len(history) >= len(expected) - 1


def descendants(pid: int) -> list[tuple[int, str]]:
    """Process ids and titles of all that a process started, directly or not."""
    parents: Mapping[int, tuple[int, str]] = dict(read_processes())
    found, grown = {pid}, True
    while grown:
        children = {child for child, (parent, _) in parents.items() if parent in found}
        grown = not children <= found
        found |= children
    return [(child, parents[child][1]) for child in found - {pid}]


def read_processes() -> Iterator[tuple[int, tuple[int, str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                title = (entry / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), (parent, title)
