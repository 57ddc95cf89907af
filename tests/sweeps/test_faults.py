"""Faults that are injected for real while sweeps run: nothing is lost and nothing is doubled."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from sweeps.ui import mlflow_ui
from tests.sweeps.faulty_proxy import FaultyProxy
from tests.sweeps.running import Driver, SweepFolder, undisturbed

pytestmark = pytest.mark.faults

GRID = """
name: chaos
corpus: file:play.txt
training: {max_steps: 90, eval_every: 30, batch_size: 32}
arms:
  - model: {variant: bigram}
  - model: {variant: factorized, n_embd: 384}
  - model: {variant: attention}
    grid:
      model.pe_type: [randn, sinpe, rope]
      model.n_embd: [64, 128, 256]
      training.block_size: [8, 16, 32, 64]
"""
DRIVER_KILLS = 5
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


class WorkerKiller(threading.Thread):
    """Kills a random worker of a driver every few seconds until told to stop."""

    def __init__(self, driver: Driver, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.driver, self.chance = driver, chance
        self.kills = 0
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.enough.wait(self.chance.uniform(2, 5)):
            if workers := self.driver.workers:
                try:
                    self.driver.kill(self.chance.choice(workers))
                    self.kills += 1
                except ProcessLookupError:
                    continue

    def stop(self) -> int:
        self.enough.set()
        self.join()
        return self.kills


def test_a_sweep_survives_its_workers_its_driver_and_its_tracking_server(
    tmp_path: Path, proxy: FaultyProxy
) -> None:
    folder = SweepFolder(tmp_path / "study", GRID, tracking_uri=proxy.url)
    chance = random.Random(SEED)
    worker_kills = 0
    for round_ in range(DRIVER_KILLS):
        driver = folder.start()
        killer = WorkerKiller(driver, chance)
        if round_ == 2:
            with proxy.away():
                time.sleep(20)
        else:
            time.sleep(chance.uniform(4, 20))
        assert driver.process.poll() is None, driver.output
        driver.kill()
        worker_kills += killer.stop()
    driver = folder.start()
    killer = WorkerKiller(driver, chance)
    code = driver.end()
    worker_kills += killer.stop()
    assert code == 0, driver.output
    assert "unsent" not in driver.output
    assert worker_kills >= 5
    assert proxy.errors >= 5
    assert proxy.refused >= 1
    error_rate, proxy.error_rate = proxy.error_rate, 0
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
    proxy.error_rate = error_rate
    again = folder.run()
    assert again.returncode == 0
    assert "chaos: 38 done\n" in again.stdout


def test_a_sweep_survives_the_death_of_a_machine(tmp_path: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    cluster.wait_for_nodes()
    folder = SweepFolder(tmp_path, GRID)
    try:
        driver = folder.start("--address", cluster.address)
        trials = folder.path / "state/sweeps/chaos/trials"
        driver.wait_for(lambda: len(list(trials.glob("*/artifacts"))) >= 5)
        cluster.remove_node(doomed, allow_graceful=False)
        assert driver.end() == 0, driver.output
    finally:
        cluster.shutdown()
    assert "workers died" in driver.output
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
