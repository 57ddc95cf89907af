"""Processes, machines and connections die while sweeps run: nothing is lost, nothing is doubled.

`benchmarks/fault_soak.py` does the same for hours.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from sweeps.cluster.ray_environment import scratch_folder
from sweeps.server.ui import mlflow_ui
from tests.processes import descendants
from tests.sweeps.faulty_proxy import FaultyProxy
from tests.sweeps.running import WAIT_S, Driver, SweepFolder, undisturbed
from tests.sweeps.waiting import WaitingFolder

pytestmark = pytest.mark.faults

GRID = """
name: chaos
corpus: file:play.txt
training: {max_steps: 360, eval_every: 120, batch_size: 16}
arms:
  - model: {variant: bigram}
  - model: {variant: factorized, n_embd: 64}
  - model: {variant: attention}
    grid:
      model.pe_type: [randn, sinpe, rope]
      model.n_embd: [8, 16, 32]
      training.block_size: [4, 8, 16, 32]
"""
SEED = 20_261_122


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A real MLflow server behind a proxy that answers one request in twenty with 500."""
    monkeypatch.chdir(tmp_path)  # where the server keeps artifacts
    database = f"sqlite:///{tmp_path}/served.db"
    with mlflow_ui(database, log_file=tmp_path / "server.log") as url:
        proxy = FaultyProxy(url, error_rate=0.05, seed=SEED)
        yield proxy
        proxy.close()


def test_a_sweep_survives_its_workers_its_driver_and_its_tracking_server(
    tmp_path: Path, proxy: FaultyProxy
) -> None:
    folder = SweepFolder(tmp_path / "study", GRID, tracking_uri=proxy.url)
    chance = random.Random(SEED)

    def kill_workers(driver: Driver) -> None:
        """Kill two workers, each when some more trials have ended."""
        for _ in range(2):
            enough = folder.ended + chance.randint(1, 3)
            driver.wait_for(lambda enough=enough: folder.ended >= enough)
            driver.kill_worker()

    for is_away in (False, True, False):
        driver = folder.start()
        with proxy.away() if is_away else contextlib.nullcontext():
            kill_workers(driver)  # trials end while the server is away
        time.sleep(chance.uniform(0, 1))
        assert driver.process.poll() is None, driver.output
        driver.kill()
    driver = folder.start()
    kill_workers(driver)
    assert driver.end() == 0, driver.output
    assert "workers died" in driver.output
    assert "unsent" not in driver.output
    assert proxy.errors >= 5
    assert proxy.refused >= 1
    error_rate, proxy.error_rate = proxy.error_rate, 0
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
    proxy.error_rate = error_rate
    again = folder.run()
    assert again.returncode == 0
    assert "chaos: 38 done\n" in again.stdout


@pytest.fixture
def scratch() -> Iterator[Path]:
    with scratch_folder() as folder:
        yield folder


def test_a_sweep_survives_the_death_of_a_machine(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = WaitingFolder(tmp_path)
    for name, value in folder.environment.items():
        monkeypatch.setenv(name, value)  # of the workers
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": str(scratch)}
    )
    doomed = cluster.add_node(num_cpus=1)
    (raylet,) = (process.process.pid for process in doomed.all_processes["raylet"])
    cluster.wait_for_nodes()
    try:
        driver = folder.start("--address", cluster.address)
        trials = folder.folder / "trials"
        driver.wait_for(lambda: len(list(trials.glob("*/checkpoint.safetensors"))) == 2)
        workers = [psutil.Process(pid) for pid, title in descendants(raylet) if "Train" in title]
        assert workers, "the machine trains"
        cluster.remove_node(doomed, allow_graceful=False)
        assert psutil.wait_procs(workers, WAIT_S)[1] == []
        folder.go_on()
        assert driver.end() == 0, driver.output
        assert "workers died" in driver.output
    finally:
        cluster.shutdown()
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
