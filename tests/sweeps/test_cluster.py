"""`sweeps run --address`: a real Ray cluster of two machines on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.sweeps.running import SweepFolder

SWEEP = """
name: shared
corpus: file:play.txt
training: {max_steps: 4, eval_every: 2, batch_size: 4}
replicates: [1, 2, 3, 4]
arms: [{model: {variant: bigram}}]
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


def test_an_address_where_no_cluster_answers_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, "127.0.0.1:9")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "no Ray cluster answers at 127.0.0.1:9" in result.stderr
