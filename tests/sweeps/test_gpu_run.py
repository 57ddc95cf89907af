"""The first lines of `sweeps run` with and without GPUs, and the packs that train first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sweeps.cli.main import main
from sweeps.resources.nodes import Node
from tests.sweeps.fake_nvml import Gpu, has_gpus
from trainables.config import TrialConfig
from trainables.data.verse import write_play

SWEEP = """
name: s1
corpus: file:play.txt
training: {max_steps: 100, block_size: 4, batch_size: 8}
replicates: 3
arms:
  - model: {variant: bigram}
  - model: {variant: attention, pe_type: rope}
    grid: {model.n_embd: [64]}
  - model: {variant: attention, pe_type: rope, n_embd: 8}
    grid: {training.learning_rate: [1e-2, 2e-2, 3e-2, 4e-2, 5e-2, 6e-2]}
"""


class DrivenError(Exception):
    """Ends a run where its trials would train."""


Run = Callable[..., tuple[list[str], list[list[TrialConfig]]]]


@pytest.fixture
def run(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a sweep on some machines; return its first lines and its packs in order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STATE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("play.txt").write_text(write_play(characters=20_000))
    Path("sweep.yaml").write_text(SWEEP)
    Path("state").mkdir()
    shutil.copy(empty_store, "state/mlflow.db")

    def start(nodes: Sequence[Node], *overrides: str) -> tuple[list[str], list[list[TrialConfig]]]:
        packs: list[list[TrialConfig]] = []

        def run_trials(_: Any, queue: Any, allocation: Any, *__: Any) -> None:
            while trials := queue.next(allocation.packs):
                packs.append(trials)
            raise DrivenError

        monkeypatch.setattr("sweeps.cli.run._start_ray", lambda *_: None)
        monkeypatch.setattr(
            "sweeps.execution.training._connect", lambda *_: (tmp_path, list(nodes))
        )
        monkeypatch.setattr("sweeps.execution.training._run_trials", run_trials)
        done = CliRunner().invoke(main, ["run", "sweep.yaml", *overrides])
        assert isinstance(done.exception, DrivenError), done.output
        return done.output.splitlines(), packs

    return start


def test_a_run_on_a_gpu_says_so_and_begins_with_the_longest_packs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_gpus(monkeypatch, [Gpu(80)])
    lines, packs = run([Node(16, 1)])
    words = "1 x NVIDIA H200, 80.0 GiB free: 2 packs at a time on each, 2 at once"
    assert f"gpu     {words}" in lines
    assert "packs   2 of 3 trials, 1 of 18 trials" in lines
    assert [len(pack) for pack in packs] == [18, 3, 3]  # one of the 18 takes less than one of the 3
    assert [pack[0].flat.get("n_embd") for pack in packs] == [8, 64, None]


@pytest.mark.parametrize("overrides", [[], ["resources.gpus_per_trial=auto"]])
def test_a_run_without_a_gpu_says_nothing_of_one(
    overrides: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_gpus(monkeypatch, [], is_usable=False, problem="NVML Shared Library Not Found")
    lines, packs = run([Node(2, 0)], *overrides)
    assert not [line for line in lines if "gpu" in line.lower() or line.startswith("packs")]
    assert {len(pack) for pack in packs} == {1}


def test_a_gpu_that_the_file_does_not_want_is_not_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.execution.training.gpus_here", None)
    lines, packs = run([Node(2, 1)], "resources.gpus_per_trial=0")
    assert not [line for line in lines if line.startswith("gpu")]
    assert {len(pack) for pack in packs} == {1}
