"""Running a sweep again: what is done stays done, what changed is seen, what failed is said."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from tests.sweeps.running import SweepFolder, undisturbed

pytestmark = pytest.mark.faults

GRID = """
name: grid
description: {description}
corpus: file:play.txt
training: {{max_steps: 30, eval_every: 10, batch_size: 16}}
arms:
  - model: {{variant: attention, n_embd: 16}}
    grid: {{model.pe_type: [{pe_types}], training.block_size: [8, 16]}}
resources: {{max_concurrent: {at_once}}}
"""


def test_an_edited_sweep_trains_what_is_new_and_puts_aside_what_is_gone(tmp_path: Path) -> None:
    def edit(pe_types: str, description: str = "the grid", at_once: int = 2) -> None:
        folder.write(GRID.format(pe_types=pe_types, description=description, at_once=at_once))

    folder = SweepFolder(tmp_path, "")
    edit("rope, sinpe")
    first = folder.run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "grid: 0 done, 4 to run\n" in first.stdout
    old = {key: run.info.run_id for key, run in folder.by_key().items()}

    edit("rope, randn", description="another grid", at_once=1)
    refused = folder.run()
    assert refused.returncode == 2
    assert "2 trials stay, 2 come, 2 go (pe_type rope sinpe, now rope randn)" in refused.stderr
    second = folder.run("run", "sweep.yaml", "--retire")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "grid: 2 done, 2 to run, 2 no longer part of the sweep\n" in second.stdout
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
    removed = folder.by_key("removed")
    assert {run.data.params["pe_type"] for run in removed.values()} == {"sinpe"}
    assert {run.info.status for run in removed.values()} == {"FINISHED"}
    ranked = tmp_path / "state" / "reports" / "grid" / "ranking.csv"
    with ranked.open(encoding="utf-8") as file:
        assert {row["pe_type"] for row in csv.DictReader(file)} == {"rope", "randn"}
    (parent,) = folder.runs("sweep")
    note = parent.data.tags["mlflow.note.content"]
    assert "\n\n**4 of 4 trials are done**. Best: " in note
    assert "\n\nanother grid\n\n![val_loss](get-artifact?path=overview.png&" in note

    edit("rope, sinpe")
    third = folder.run("run", "sweep.yaml", "--retire")
    assert third.returncode == 0
    assert "grid: 4 done, 2 no longer part of the sweep\n" in third.stdout
    assert {key: run.info.run_id for key, run in folder.by_key().items()} == old
    shown = Path(parent.info.artifact_uri.removeprefix("file://")) / "ranking.json"
    assert len(json.loads(shown.read_text())["data"]) == 4  # of three runs, the last one's table

    folder.client.delete_experiment(parent.info.experiment_id)
    deleted = folder.run()
    assert deleted.returncode == 2
    assert "'grid' is deleted; restore it" in deleted.stderr


FRAGILE = """
name: fragile
corpus: file:play.txt
training: {max_steps: 30, eval_every: 10, batch_size: 16}
arms:
  - model: {variant: "fragile:Fragile"}
  - model: {variant: bigram}
    grid: {training.learning_rate: [1e-2, 1e30, 1e31]}
resources: {max_failures: 1, max_concurrent: 1}
"""
MODEL = '''
import os
from dataclasses import dataclass
from pathlib import Path
from bigram_models import BigramTable

class Fragile(BigramTable):
    """Does not fit, as long as a file says so."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def forward(self, ids_BT):
        if Path(os.environ["TOO_LARGE"]).exists():
            raise MemoryError("3 GiB do not fit")
        return super().forward(ids_BT)
'''


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep of one good trial, two that diverge, and one that does not fit into memory."""
    too_large = tmp_path / "too_large"
    too_large.touch()
    monkeypatch.setenv("TOO_LARGE", str(too_large))
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = SweepFolder(tmp_path, FRAGILE)
    (tmp_path / "fragile.py").write_text(MODEL)
    return folder


def test_failed_trials_are_told_by_reason_and_tried_again_up_to_a_limit(
    fragile: SweepFolder,
) -> None:
    first = fragile.run()
    assert first.returncode == 1, first.stdout + first.stderr
    assert "failed  2 x TrainingDivergedError: the loss is" in first.stdout
    assert "failed  1 x MemoryError: 3 GiB do not fit" in first.stdout
    assert "again   sweeps run sweep.yaml --retry-failed\n" in first.stdout
    for line in first.stdout.splitlines():
        if ", log: " in line:
            assert "Error: " in Path(line.partition(", log: ")[2]).read_text()
    statuses = sorted(run.info.status for run in fragile.runs())
    assert statuses == ["FAILED", "FAILED", "FAILED", "FINISHED"]

    second = fragile.run()
    assert second.returncode == 1
    assert "fragile: 1 done, 3 given up\n" in second.stdout
    assert "failed  2 x TrainingDivergedError" in second.stdout

    Path(os.environ["TOO_LARGE"]).unlink()
    third = fragile.run("run", "sweep.yaml", "--retry-failed")
    assert third.returncode == 1
    assert "fragile: 1 done, 3 failed to retry\n" in third.stdout
    assert "MemoryError" not in third.stdout
    finished = [run for run in fragile.by_key().values() if run.info.status == "FINISHED"]
    assert len(finished) == 2
    assert {run.data.tags.get("failure", "") for run in finished} == {""}


def test_fail_fast_stops_at_the_first_failure(fragile: SweepFolder) -> None:
    stopped = fragile.run("run", "sweep.yaml", "--fail-fast")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "stopped before the end: a trial failed: " in stopped.stdout
    statuses = [run.info.status for run in fragile.runs()]
    assert statuses.count("FAILED") == 1
    assert len(statuses) < 4
    assert [run.info.status for run in fragile.runs("sweep")] == ["KILLED"]


def test_a_sweep_without_its_tracking_store_is_kept_until_sync(tmp_path: Path) -> None:
    sweep = GRID.format(pe_types="rope", description="offline", at_once=2)
    nowhere = "http://127.0.0.1:9"
    folder = SweepFolder(tmp_path, sweep, tracking_uri=nowhere)
    offline = folder.run()
    assert offline.returncode == 1, offline.stdout + offline.stderr
    assert "offline MLflow takes no events now, they are kept: " in offline.stdout
    assert "unsent  3 runs are not in MLflow yet, they are kept" in offline.stdout
    assert f"send    sweeps sync grid --tracking-uri {nowhere}\n" in offline.stdout
    assert "Traceback" not in offline.stdout + offline.stderr

    folder.tracking_uri = ""
    sent = folder.run("sync", "grid")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "grid: all sent" in sent.stdout
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
    assert (tmp_path / "state" / "reports" / "grid" / "ranking.csv").exists()
    assert folder.run("sync", "grit").returncode == 2

    again = folder.run()  # the store that has it all is now where the sweep is tracked
    assert "grid: 2 done\n" in again.stdout
    for run in folder.runs():
        folder.client.delete_run(run.info.run_id)
    assert folder.run().returncode == 0
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
