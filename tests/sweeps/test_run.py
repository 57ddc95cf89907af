"""`sweeps run` as a user runs it: a real Ray, a real MLflow store, and what is left in it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from analysis.command import main as analysis
from sweeps.cli.main import main as sweeps
from sweeps.planning.plan import Plan
from tests.sweeps.running import SweepFolder, in_process
from trainables.training.evaluation import exact_loss
from trainables.training.loop import Splits, initial_state, train

SWEEP = """
name: small
corpus: file:play.txt
training: {max_steps: 30, eval_every: 10, batch_size: 16}
arms:
  - model: {variant: count}
  - model: {variant: "cubic:Cubic", power: 3}
  - model: {variant: attention, n_embd: 16}
    training: {evaluate_train: end}
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
DIVERGES = "1e+30"


@dataclass
class Study:
    """A folder in which the sweep was run, and what the command said."""

    folder: SweepFolder
    result: subprocess.CompletedProcess[str]
    plan: Plan

    def runs(self, role: str) -> list[Any]:
        return self.folder.runs(role)

    def by_key(self) -> dict[str, Any]:
        return self.folder.by_key()

    @property
    def path(self) -> Path:
        return self.folder.path

    def shown_table(self, parent: Any) -> pd.DataFrame:
        """The table that the UI shows for the parent."""
        logged = json.loads(parent.data.tags["mlflow.loggedArtifacts"])
        assert logged == [{"path": "ranking.json", "type": "table"}]
        with tempfile.TemporaryDirectory() as folder:
            client = self.folder.client
            path = client.download_artifacts(parent.info.run_id, "ranking.json", folder)
            return pd.read_json(path, orient="split")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = SweepFolder(tmp_path_factory.mktemp("a study with spaces"), SWEEP)
    (folder.path / "cubic.py").write_text(CUBIC)
    before = Path.cwd()
    os.chdir(folder.path)
    sys.path.insert(0, str(folder.path))
    try:
        yield Study(folder, folder.run(), folder.plan)
    finally:
        sys.path.remove(str(folder.path))
        os.chdir(before)


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
        (trial,) = (trial for trial in study.plan.trials if trial.key == key)
        expected = in_process(study.plan, trial)
        curve = study.folder.curve
        assert curve(run, "val_loss") == [(e.step, e.val_loss) for e in expected]
        assert curve(run, "train_loss") == [
            (e.step, e.train_loss) for e in expected if e.train_part != "end"
        ]
        assert curve(run, "best_val_loss") == [(e.step, e.best_val_loss) for e in expected]


def test_training_losses_are_of_the_part_that_was_asked_for(study: Study) -> None:
    ranking = pd.read_csv(study.path / "state/reports/small/ranking.csv").set_index("run_ids")
    splits = Splits.of(study.plan.corpus, torch.device("cpu"))
    for key, run in study.by_key().items():
        variant = run.data.params["variant"]
        if is_diverging(run) or variant == "count":
            continue
        (trial,) = (trial for trial in study.plan.trials if trial.key == key)
        steps = [step for step, _ in study.folder.curve(run, "train_loss")]
        assert steps == ([30] if variant == "attention" else [10, 20, 30])
        state = initial_state(trial, study.plan.corpus.vocab_size)
        *_, end = train(state, splits, trial.training, trial.seed)
        whole = exact_loss(state.model, splits.train, trial.training.block_size)
        assert end.train_loss == run.data.metrics["train_loss"] == whole
        assert ranking.loc[run.info.run_id, "train_loss"] == pytest.approx(whole, rel=1e-12)


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
        assert run.info.run_name == study.plan.names.run_name(trial)
    names = {run.info.run_name for run in study.runs("trial")}
    assert {"attention rope n_embd=16 lr=0.01", "bigram lr=1e+30", "Cubic power=3 lr=0.01"} <= names


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


def test_a_run_shows_what_its_trial_took_and_leads_to_its_log(study: Study) -> None:
    for run in study.runs("trial"):
        folder = Path(run.info.artifact_uri.removeprefix("file://").replace("%20", " "))
        log = (folder / "log.txt").read_text()
        assert f"{run.info.run_id}/artifacts/log.txt" in run.data.tags["mlflow.note.content"]
        if is_diverging(run):
            assert "Traceback" in log
            (shown,) = re.findall(r"log: (.*)", study.result.stdout)
            assert log == Path(shown).read_text()
        else:
            assert log.endswith(" finished\n")
            (cpu_percent,) = {
                value for name, value in run.data.metrics.items() if "system/process_cpu" in name
            }
            assert cpu_percent > 0


def test_the_parent_has_the_ranking_as_csv_markdown_and_table(study: Study) -> None:
    (parent,) = study.runs("sweep")
    folder = Path(parent.info.artifact_uri.removeprefix("file://").replace("%20", " "))
    ranking = pd.read_csv(folder / "ranking.csv")
    assert list(ranking["val_loss"]) == sorted(
        run.data.metrics["val_loss"] for run in study.runs("trial") if not is_diverging(run)
    )
    assert (folder / "ranking.md").read_text().startswith("|   rank | variant")
    assert list(study.shown_table(parent)["run_ids"]) == list(ranking["run_ids"])


def test_the_parent_says_what_asked_for_the_sweep(study: Study) -> None:
    (parent,) = study.runs("sweep")
    assert parent.data.tags["command"] == "sweeps run sweep.yaml"
    assert f"Python {platform.python_version()}, torch 2" in parent.data.tags["versions"]


def test_a_report_is_written_and_attached_to_the_parent(study: Study) -> None:
    result = CliRunner().invoke(analysis, ["report", "small"])
    assert result.exit_code == 0, result.output
    folder = study.path / "state/reports/small"
    text = (folder / "report.md").read_text()
    assert "6 trials (1 FAILED, 5 FINISHED) of 6 configurations. Seeds: 1337." in text
    assert "FAILED: TrainingDivergedError: the loss is" in text
    assert "| command       | sweeps run sweep.yaml" in text
    assert str(study.path) not in text
    (parent,) = study.runs("sweep")
    artifacts = Path(parent.info.artifact_uri.removeprefix("file://").replace("%20", " "))
    for file in ("report.html", "report.md", "figures/curves.png"):
        assert (artifacts / file).read_bytes() == (folder / file).read_bytes()
    again = (folder / "report.html").read_bytes()
    assert CliRunner().invoke(analysis, ["report", "small"]).exit_code == 0
    assert (folder / "report.html").read_bytes() == again


def test_the_experiment_opens_on_its_own_views(study: Study) -> None:
    tags = study.folder.client.get_experiment_by_name("small").tags
    state = json.loads(json.loads(tags["mlflow.sharedViewState.ranking"])["state"])
    assert "params.`pe_type`" in state["selectedColumns"]
    assert "tags.sweep = 'small'" in state["searchFilter"]
    curves = json.loads(json.loads(tags["mlflow.sharedViewState.curves"])["state"])
    assert not curves.get("groupBy")  # a line for each trial


def test_rankings_reads_the_same_from_the_store(study: Study) -> None:
    arguments = ["rankings", "small", "--out", str(study.path / "tables")]
    result = CliRunner().invoke(analysis, arguments)
    assert result.exit_code == 0, result.output
    assert "not ranked: 1 FAILED" in result.output
    written = (study.path / "tables" / "ranking.csv").read_bytes()
    assert written == (study.path / "state/reports/small/ranking.csv").read_bytes()
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


def test_sample_works_after_the_project_folder_was_renamed(study: Study, tmp_path: Path) -> None:
    def sample(state: Path) -> Result:
        return CliRunner().invoke(sweeps, ["sample", "small/best", "--state", str(state)])

    here, renamed = study.path / "state", tmp_path / "renamed" / "state"
    expected = sample(here)
    assert expected.exit_code == 0, expected.output
    shutil.copytree(here, renamed)
    hidden = here / "artifacts.hidden"
    (here / "artifacts").rename(hidden)
    try:
        done = sample(renamed)
    finally:
        hidden.rename(here / "artifacts")
    assert (done.exit_code, done.stdout) == (0, expected.stdout), done.output
