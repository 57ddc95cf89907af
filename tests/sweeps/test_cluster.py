"""`sweeps run --address`: a real Ray cluster of two machines on loopback."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from ray.cluster_utils import Cluster

from sweeps.cluster.ray_environment import scratch_folder
from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from tests.sweeps.running import SweepFolder
from tests.sweeps.waiting import SWEEP as WAITING
from tests.sweeps.waiting import WaitingFolder, waiting_environment

SWEEP = """
name: shared
corpus: file:play.txt
training: {max_steps: 4, eval_every: 2, batch_size: 4}
replicates: [1, 2, 3, 4]
arms: [{model: {variant: bigram}}]
resources: {cpus_per_trial: 1, gpus_per_trial: 0.5}
"""

HUNGRY = """
name: hungry
corpus: file:play.txt
training: {max_steps: 4, eval_every: 2, batch_size: 4}
replicates: [1, 2]
arms: [{model: {variant: "hungry:Hungry"}}]
resources: {gpus_per_trial: 0.5}
"""
# Of seed 1 it needs more than half a GPU, of seed 2 more than there is. It hears from Ray what it
# has; in the driver, which times its steps, it has nothing.
HUNGRY_MODEL = """
from dataclasses import dataclass

import ray
import torch
from bigram_models import LanguageModel


class Hungry(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.row = torch.nn.Parameter(torch.zeros(vocab_size))
        self.needs = {1: 0.6, 2: 9.0}[generator.initial_seed()]

    def forward(self, ids_BT):
        if ray.is_initialized():
            share = ray.get_runtime_context().get_assigned_resources()["GPU"]
            if share < self.needs:
                raise torch.OutOfMemoryError(f"CUDA out of memory with a share of {share}")
        return self.row.expand(*ids_BT.shape, -1)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One machine with 1 CPU and a logical GPU, and one with 2 CPUs; a model that waits does."""
    with scratch_folder() as scratch:
        head = {"num_cpus": 1, "num_gpus": 1, "temp_dir": str(scratch)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in waiting_environment(tmp_path_factory.mktemp("waits")).items():
                patch.setenv(name, value)
            cluster = Cluster(initialize_head=True, head_node_args=head)
            cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


def run(path: Path, address: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    return SweepFolder(path, SWEEP).run("run", "sweep.yaml", *overrides, "--address", address)


def test_a_sweep_trains_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    result = run(tmp_path, cluster.address)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    runs = SweepFolder(tmp_path, SWEEP).runs()
    assert [each.info.status for each in runs] == ["FINISHED"] * 4
    assert len({each.data.tags["seed"] for each in runs}) == 4
    assert not list((tmp_path / "state/sweeps/shared").glob(".marker*"))


def test_what_no_machine_of_the_cluster_has_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    result = run(tmp_path, cluster.address, "resources.gpus_per_trial=2")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "no machine has them" in result.stderr
    assert "1 CPUs, 1 GPUs" in result.stderr
    assert "2 CPUs, 0 GPUs" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_trial_that_runs_out_of_memory_goes_on_with_a_larger_share(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = SweepFolder(tmp_path, HUNGRY)
    (tmp_path / "hungry.py").write_text(HUNGRY_MODEL)
    result = folder.run("run", "sweep.yaml", "--address", cluster.address)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr == ""
    runs = {run.data.tags["seed"]: run for run in folder.runs()}
    assert runs["1"].info.status == "FINISHED"
    assert runs["2"].info.status == "FAILED"
    assert "out of memory with a share of 1.0" in runs["2"].data.tags["failure"]
    said = [line for line in result.stdout.splitlines() if "did not fit" in line]
    assert said == ["seed=1 did not fit into 0.5 of a GPU, goes on with 1"]  # 2 learnt from it
    assert "workers died" not in result.stdout


def test_a_sweep_trains_on_cpus_where_torch_can_use_no_gpu(
    cluster: Cluster, tmp_path: Path
) -> None:
    result = run(tmp_path, cluster.address, "resources.gpus_per_trial=auto", "replicates=1")
    assert result.returncode == 0, result.stdout + result.stderr
    if not torch.cuda.is_available():  # asked of the machine with the logical GPU
        reason = "torch can use none: the trials train on CPUs (it finds none), 3 at once"
        assert f"gpu     {reason}\n" in result.stdout


def test_an_address_where_no_cluster_answers_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, "127.0.0.1:9")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "no Ray cluster answers at 127.0.0.1:9" in result.stderr


def test_a_sweep_makes_room_for_another(cluster: Cluster, tmp_path: Path) -> None:
    """One that has all three CPUs lets the other have its share, and goes on with what it left."""
    endless = WAITING.replace("[1, 2]", "3").replace("max_steps: 1500", "max_steps: 1000000")
    long = WaitingFolder(tmp_path / "long", endless)
    driver = long.start("--address", cluster.address)
    driver.wait_for(lambda: [one.status for one in trials(long)] == ["RUNNING"] * 3)
    short = run(tmp_path / "short", cluster.address, "resources.gpus_per_trial=0", "name=short")
    assert short.returncode == 0, short.stdout + short.stderr
    driver.wait_for(lambda: sum(one.restarts for one in trials(long)) > 0)  # it has its room back
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 130
    assert [one.recomputed for one in trials(long)] == [0, 0, 0]  # saved before they were left


def trials(folder: SweepFolder) -> list[TrialRecord]:
    """What the outbox of a sweep has of its trials."""
    if not (folder.folder / "outbox.db").exists():
        return []
    with closing(Outbox(folder.folder / "outbox.db", folder.name)) as outbox:
        return outbox.trials()
