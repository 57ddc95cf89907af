"""Packs with a real Ray: each of their trials stays a trial for everything else."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.sweeps.running import SweepFolder, undisturbed

GRID = """
name: packed
corpus: file:play.txt
training: {max_steps: 1500, eval_every: 500, batch_size: 8}
replicates: 3
arms:
  - model: {variant: attention, n_embd: 8}
    grid: {model.pe_type: [rope, randn]}
  - model: {variant: bigram}
    grid: {training.learning_rate: [1e-2, 1e30]}
  - model: {variant: count}
resources: {pack: 4, max_concurrent: 2}
"""
SEARCH = """
name: packed-search
corpus: file:play.txt
training: {max_steps: 90, eval_every: 30, batch_size: 8, block_size: 4}
replicates: 2
arms:
  - model: {variant: attention, n_embd: 8}
    search: {training.learning_rate: {low: 1e-3, high: 1, log: true}}
search:
  trials: 8
  sampler: random
  stopping: {rule: asha, first_step: 30, reduction: 2}
  confirm: {top: 1, replicates: 4}
resources: {pack: 3}
"""


@pytest.mark.faults
def test_a_pack_survives_its_worker_and_a_stop_and_each_trial_is_one_run(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, GRID)
    trials = folder.folder / "trials"
    driver = folder.start()
    driver.wait_for(lambda: len(list(trials.glob("*/checkpoint.safetensors"))) >= 4)
    driver.kill_worker()
    started = len(list(trials.glob("*/checkpoint.safetensors")))
    driver.wait_for(lambda: len(list(trials.glob("*/checkpoint.safetensors"))) > started)
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 130, driver.output
    assert "packs   " in driver.output
    assert "workers died" in driver.output

    again = folder.run()
    assert again.returncode == 1, again.stdout + again.stderr
    assert "failed  3 x TrainingDivergedError: the loss is" in again.stdout
    assert "goes on alone" not in driver.output + again.stdout  # no pack fell apart
    runs, expected = folder.by_key(), undisturbed_but_for_failures(folder)
    statuses = Counter(run.info.status for run in runs.values())
    assert statuses == {"FINISHED": 12, "FAILED": 3}
    assert {key for key, run in runs.items() if run.info.status == "FINISHED"} == expected.keys()
    logs = [path.read_text() for path in trials.glob("*/artifacts/log.txt")]
    assert sum("in a pack of 4: " in log for log in logs) >= 4
    for key, curve in expected.items():
        found = folder.curve(runs[key])
        assert [step for step, _ in found] == [step for step, _ in curve]
        assert [loss for _, loss in found] == pytest.approx([loss for _, loss in curve], abs=3e-3)


def undisturbed_but_for_failures(folder: SweepFolder) -> dict[str, list[tuple[int, float]]]:
    plan = folder.plan
    good = [trial for trial in plan.trials if trial.training.learning_rate < 1]
    return undisturbed(plan, good)


def test_a_search_stops_trials_of_a_pack_and_the_others_go_on(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, SEARCH)
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on alone" not in done.stdout  # no pack fell apart
    runs = folder.by_key().values()
    assert {run.info.status for run in runs} == {"FINISHED"}
    stages = Counter(run.data.tags.get("stage", "") for run in runs)
    assert stages == {"search": 16, "confirm": 4}
    last = Counter(folder.curve(run)[-1][0] for run in runs)
    assert last[90] >= 6
    stopped = [run for run in runs if run.data.tags.get("stopped")]
    assert stopped
    assert all(folder.curve(run)[-1][0] < 90 for run in stopped)
    logs = folder.folder.glob("trials/*/artifacts/log.txt")
    assert any("in a pack of 3: " in log.read_text() for log in logs)


OWN = """
from torch.nn.functional import dropout
from bigram_models import BigramTable

class Dropping(BigramTable):
    def forward(self, ids_BT):
        return dropout(super().forward(ids_BT), 0.5, self.training)
"""
UNSTACKABLE = """
name: unstackable
corpus: file:play.txt
training: {max_steps: 20, eval_every: 10, batch_size: 8}
replicates: 3
arms: [{model: {variant: "dropping:Dropping"}}]
resources: {pack: 8}
"""


def test_trials_that_cannot_be_a_pack_train_alone_and_verify_pack_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SweepFolder(tmp_path, UNSTACKABLE)
    (tmp_path / "dropping.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cannot train in a pack of 3, goes on alone (NotStackableError: " in done.stdout
    runs = folder.by_key().values()
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    verified = folder.run("verify-pack", "sweep.yaml")
    assert verified.returncode == 0, verified.stderr
    assert "\nalone   dropping:Dropping" in verified.stdout


def test_verify_pack_compares_packs_with_their_trials_alone(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, GRID)
    small = ("training.max_steps=60", "training.eval_every=30", "training.learning_rate=1e-2")
    verified = folder.run("verify-pack", "sweep.yaml", *small)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    first, *packs, summary = verified.stdout.splitlines()
    assert first.startswith("compare 3 packs, 9 trials, twice each: about ")
    assert all(line.startswith("honest  ") for line in packs)
    assert summary.startswith("honest  9 trials in 3 packs: losses within 0.0000")
    nothing = folder.run("verify-pack", "sweep.yaml", "model.smoothing=2", "--size", "1")
    assert nothing.returncode == 2
