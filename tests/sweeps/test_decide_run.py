"""A sweep that decides claims, with a real Ray: killed, resumed, and then with larger limits."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis import check_claims, load_trials
from sweeps.records.outbox_file import OUTBOX
from sweeps.records.outbox_reader import read_trials
from tests.sweeps.running import SweepFolder, undisturbed

pytestmark = pytest.mark.faults

SWEEP = """
name: decided
corpus: file:play.txt
training: {max_steps: 30, eval_every: 10, batch_size: 16}
arms:
  - model: {variant: attention, n_embd: 16}
    training: {block_size: 8}
    grid: {model.pe_type: [rope, sinpe]}
  - model: {variant: bigram}
    grid: {training.block_size: [8, 9]}
resources: {gpus_per_trial: 0, max_concurrent: 1}
decide: {claims: claims.yaml, max_seeds: 4}
"""
CLAIMS = """
claims:
  - claim: attention is better than the bigram
    better: {variant: attention}
    worse: {variant: bigram, block_size: 8}
  - claim: sinpe is better than rope
    where: {variant: attention}
    factor: pe_type
    order: [sinpe, rope]
  - claim: block_size makes no difference for the bigram  # it makes one of about the margin
    where: {variant: bigram}
    factor: block_size
    equal: [8, 9]
    margin: 0.0095
"""


def test_a_decided_sweep_goes_on_after_a_kill_and_with_larger_limits(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, SWEEP)
    (tmp_path / "claims.yaml").write_text(CLAIMS)

    def finished() -> int:
        outbox = folder.folder / OUTBOX
        return sum(r.status == "FINISHED" for r in read_trials(outbox)) if outbox.exists() else 0

    driver = folder.start()
    driver.wait_for(lambda: finished() >= 8)
    driver.kill()
    killed_at = finished()
    assert killed_at < 14

    second = folder.run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"decided: {killed_at} done, " in second.stdout
    lines = [line for line in second.stdout.splitlines() if line.startswith("claims  ")]
    assert any(line.startswith("claims  1 SUPPORTED (e-value ") for line in lines)
    assert any(line.startswith("claims  2 SUPPORTED (e-value ") for line in lines)
    assert any(line.startswith("claims  3 open (e-value ") for line in lines)
    assert "at most 4 seeds of a configuration" in lines[-1]
    assert set(counts(folder)["bigram"]) == {4}

    third = folder.run("run", "sweep.yaml", "decide.max_seeds=6")
    assert third.returncode == 0, third.stdout + third.stderr
    assert "0 running" in third.stdout
    found = counts(folder)
    assert set(found["bigram"]) == {6}
    assert max(found["attention"]) <= 4  # their claims were decided

    runs = folder.by_key()  # one for each trial
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    trials = load_trials("decided", folder.client.tracking_uri)
    found_again = check_claims(trials, tmp_path / "claims.yaml", anytime=True)
    assert [each.verdict for each in found_again[:2]] == ["SUPPORTED", "SUPPORTED"]
    expected = undisturbed(folder.plan)
    assert {key: folder.curve(runs[key]) for key in expected} == expected

    (parent,) = folder.runs("sweep")
    assert parent.info.status == "FINISHED"
    (history,) = json.loads(parent.data.tags["claims_history"])
    assert history["finished"] == 0
    artifacts = Path(parent.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "claims.yaml").read_text() == CLAIMS
    looks = pd.read_csv(artifacts / "looks.csv")
    assert looks["finished"].max() == len(runs)
    metrics = folder.client.get_metric_history(parent.info.run_id, "evidence/claim 3")
    assert len(metrics) == looks["look"].nunique()

    fourth = folder.run("run", "sweep.yaml", "decide.max_seeds=6")
    assert fourth.returncode == 0
    assert f"decided: {len(runs)} done\n" in fourth.stdout
    assert "starting Ray" not in fourth.stdout


def counts(folder: SweepFolder) -> dict[str, list[int]]:
    """How many trials were finished with each configuration, by variant."""
    table = load_trials("decided", folder.client.tracking_uri).finished
    sizes = table.groupby(["variant", "pe_type", "block_size"], dropna=False).size()
    return {
        variant: sizes[sizes.index.get_level_values(0) == variant].tolist()
        for variant in ("attention", "bigram")
    }
