"""A test split in a real run: who is tested, by what, and where its loss is shown."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch

from analysis import load_trials, rankings
from analysis.results.text_blocks import text_difference
from tests.sweeps.running import SweepFolder
from trainables.persistence.artifacts import load_model
from trainables.training.evaluation import exact_loss

SWEEP = """
name: tested
corpus: {name: "file:play.txt", test: 0.05}
training: {max_steps: 20, eval_every: 10, batch_size: 16, block_size: 8}
replicates: 2
arms:
  - model: {variant: bigram}
  - model: {variant: attention}
    search: {model.n_embd: [8, 16]}
search: {stopping: none, confirm: {top: 1, replicates: 2}}
"""


def test_winners_and_the_grid_are_tested_once_and_suggestions_never(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, SWEEP, characters=60_000)
    ran = folder.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "test_loss" in ran.stdout
    corpus = folder.plan.corpus
    text = (tmp_path / "play.txt").read_text()
    test = corpus.encode(text[-round(0.05 * len(text)) :])
    by_stage = defaultdict(list)
    for run in folder.runs():
        by_stage[run.data.tags.get("stage", "")].append(run)
    assert {stage: len(runs) for stage, runs in by_stage.items()} == {
        "": 4,  # with the seeds of the winners as well
        "search": 4,
        "confirm": 2,
    }
    for stage, runs in by_stage.items():
        for run in runs:
            assert run.data.params["corpus_test"] == "0.05"
            found = folder.curve(run, "test_loss")
            if stage == "search":
                assert found == []
                continue
            ((step, loss),) = found
            artifacts = folder.folder / "trials" / run.data.tags["key"] / "artifacts"
            model, _, _ = load_model(artifacts)
            expected = exact_loss(model, torch.tensor(test, dtype=torch.int32), 8)
            assert (step, loss) == (20, pytest.approx(expected, abs=1e-6))
            assert f"Test loss **{loss:.5f}**" in run.data.tags["mlflow.note.content"]
    store = f"sqlite:///{tmp_path}/state/mlflow.db"
    trials = load_trials("tested", store)
    ranking = rankings(trials)
    assert ranking.set_index("stage")["test_loss"].notna().to_dict() == {
        "confirm": True,
        "": True,
        "search": False,
    }
    seeds = {run.data.params["seed"]: run.info.run_id for run in by_stage["confirm"]}
    plain = {run.data.params["seed"]: run.info.run_id for run in by_stage[""]}
    run_ids = [run_id for seed in seeds for run_id in (seeds[seed], plain[seed])]
    over_text = text_difference(trials, run_ids, tracking_uri=store)
    assert over_text is not None
    assert over_text.interval.n == (len(corpus.validation) - 1) // 256
    losses = trials.table.set_index("run_id")["val_loss"]
    expected = losses[run_ids[::2]].mean() - losses[run_ids[1::2]].mean()
    assert over_text.interval.mean == pytest.approx(expected, abs=1e-6)
