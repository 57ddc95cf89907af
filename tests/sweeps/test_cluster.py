"""`sweeps run --address`: a real Ray cluster of two machines on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from trainables.verse import write_play

SWEEP = """
name: shared
corpus: file:play.txt
training: {max_steps: 4, eval_every: 2, batch_size: 4}
arms: [{model: {variant: bigram}, grid: {seed: [1, 2, 3, 4]}}]
resources: {cpus_per_trial: 1, gpus_per_trial: 0.5}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One machine with 1 CPU and a logical GPU, and one with 2 CPUs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1})
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def run(folder: Path, address: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    (folder / "play.txt").write_text(write_play(characters=20_000))
    (folder / "sweep.yaml").write_text(SWEEP)
    arguments = ["run", "sweep.yaml", *overrides, "--address", address]
    return subprocess.run(
        [str(Path(sys.executable).parent / "sweeps"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_sweep_trains_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    result = run(tmp_path, cluster.address)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/state/mlflow.db")
    experiment = client.get_experiment_by_name("shared").experiment_id
    runs = client.search_runs([experiment], "tags.role = 'trial'")
    assert [each.info.status for each in runs] == ["FINISHED"] * 4
    assert len({each.data.tags["seed"] for each in runs}) == 4


def test_what_no_machine_of_the_cluster_has_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    result = run(tmp_path, cluster.address, "resources.gpus_per_trial=2")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "no machine has them" in result.stderr
    assert "1 CPUs, 1 GPUs" in result.stderr
    assert "2 CPUs, 0 GPUs" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_address_where_no_cluster_answers_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, "127.0.0.1:9")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "no Ray cluster answers at 127.0.0.1:9" in result.stderr
