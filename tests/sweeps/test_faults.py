"""Faults that are injected for real while sweeps run: nothing is lost and nothing is doubled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors
from ray.cluster_utils import Cluster

from sweeps.process.stopping import SAME_S
from sweeps.server.ui import mlflow_ui
from tests.processes import descendants
from tests.sweeps.faulty_proxy import FaultyProxy
from tests.sweeps.running import Curve, SweepFolder, WorkerKiller, undisturbed

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
LONGER = GRID.replace("max_steps: 90, eval_every: 30", "max_steps: 360, eval_every: 120")
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


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curve]:
    """The curves of the grid when nothing goes wrong."""
    return undisturbed(SweepFolder(tmp_path_factory.mktemp("undisturbed"), GRID).plan)


def test_a_sweep_survives_its_workers_its_driver_and_its_tracking_server(
    tmp_path: Path, proxy: FaultyProxy
) -> None:
    folder = SweepFolder(tmp_path / "study", LONGER, tracking_uri=proxy.url)
    expected = undisturbed(folder.plan)
    chance = random.Random(SEED)
    worker_kills = 0
    for round_ in range(DRIVER_KILLS):
        driver = folder.start()
        killer = WorkerKiller(driver, chance, (2, 5))
        if round_ == 2:
            with proxy.away():
                time.sleep(20)
        else:
            time.sleep(chance.uniform(4, 10))
        assert driver.process.poll() is None, driver.output
        driver.kill()
        worker_kills += killer.stop()
    driver = folder.start()
    killer = WorkerKiller(driver, chance, (2, 5))
    code = driver.end()
    worker_kills += killer.stop()
    assert code == 0, driver.output
    assert "unsent" not in driver.output
    assert worker_kills >= 5
    assert proxy.errors >= 5
    assert proxy.refused >= 1
    error_rate, proxy.error_rate = proxy.error_rate, 0
    folder.assert_all_finished_as_if_undisturbed(expected)
    proxy.error_rate = error_rate
    again = folder.run()
    assert again.returncode == 0
    assert "chaos: 38 done\n" in again.stdout


def test_a_sweep_survives_the_death_of_a_machine(tmp_path: Path, grid: dict[str, Curve]) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    cluster.wait_for_nodes()
    folder = SweepFolder(tmp_path, GRID)
    try:
        driver = folder.start("--address", cluster.address)
        trials = folder.path / "state/sweeps/chaos/trials"
        driver.wait_for(lambda: len(list(trials.glob("*/artifacts/sample.txt"))) >= 5)
        cluster.remove_node(doomed, allow_graceful=False)
        assert driver.end() == 0, driver.output
    finally:
        cluster.shutdown()
    assert "workers died" in driver.output
    folder.assert_all_finished_as_if_undisturbed(grid)


LONG = """
name: long
corpus: file:play.txt
training: {max_steps: 9000, eval_every: 3000}
replicates: [1, 2]
arms: [{model: {variant: attention, n_embd: 64}}]
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curve]:
    """The curves of the long sweep when nothing goes wrong."""
    return undisturbed(SweepFolder(tmp_path_factory.mktemp("undisturbed"), LONG).plan)


def test_signals_stop_gently_or_at_once_and_a_second_driver_is_refused(
    tmp_path: Path, expected: dict[str, Curve]
) -> None:
    folder = SweepFolder(tmp_path, LONG)
    first = folder.start()
    first.wait_for(lambda: steps(folder) > 0)
    refused = folder.run()
    assert refused.returncode == 2
    assert f"is held by process {first.process.pid} on {socket.gethostname()}" in refused.stderr
    assert "since 20" in refused.stderr
    assert "Traceback" not in refused.stderr

    os.killpg(first.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert first.end() == 130, first.output
    assert "again   sweeps run sweep.yaml" in first.output
    assert {run.info.status for run in folder.runs()} == {"KILLED"}
    assert [run.info.status for run in folder.runs("sweep")] == ["KILLED"]
    stopped_at = steps(folder)
    assert saved_steps(folder) > stopped_at  # the workers saved what they did meanwhile

    second = folder.start()
    second.wait_for(lambda: steps(folder) > stopped_at)
    everything = [pid for pid, _ in descendants(second.process.pid)]
    for pid in [second.process.pid, *everything]:  # as systemd does
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert second.end() == 130, second.output
    assert "long: 0 done, 2 to continue" in second.output
    assert "taken again" not in second.output  # it went on just where it had stopped

    third = folder.start()
    third.wait_for(lambda: bool(third.workers))
    third.process.send_signal(signal.SIGINT)
    time.sleep(2 * SAME_S)  # sooner it would be the same signal
    third.process.send_signal(signal.SIGTERM)
    assert third.end() == 130, third.output
    assert "stopped at once" in third.output

    last = folder.run()
    assert last.returncode == 0, last.stdout + last.stderr
    folder.assert_all_finished_as_if_undisturbed(expected)


def test_damaged_files_and_a_clock_set_back_lose_nothing(
    tmp_path: Path, expected: dict[str, Curve]
) -> None:
    folder = SweepFolder(tmp_path, LONG)
    driver = folder.start()
    driver.wait_for(lambda: all(len(folder.curve(run)) >= 1 for run in folder.runs())
                    if steps(folder) > 4000 else False)  # fmt: skip
    driver.process.terminate()
    assert driver.end() == 130
    trial = folder.plan.trials[0]
    damaged = [folder.folder / "outbox.db"]
    damaged.append(folder.folder / "trials" / trial.key / "checkpoint.safetensors")
    for path in damaged:
        os.truncate(path, path.stat().st_size // 2)
    (tmp_path / "sitecustomize.py").write_text(CLOCK_SET_BACK)
    folder.environment["PYTHONPATH"] = str(tmp_path)

    again = folder.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "outbox.db cannot be used" in again.stdout
    assert "kept as outbox.db.unusable-1" in again.stdout
    assert "long: 0 done, 2 to continue" in again.stdout
    assert "kept as checkpoint.safetensors.unusable-1" in again.stdout
    (goes_on_from,) = re.findall(r"goes on from step (\d+)", again.stdout)
    assert int(goes_on_from) > 0  # the checkpoint before it
    for path in damaged:
        assert path.with_name(f"{path.name}.unusable-1").exists()
    folder.assert_all_finished_as_if_undisturbed(expected)
    for run in folder.runs():
        history = folder.client.get_metric_history(run.info.run_id, "val_loss")
        times_ms = [metric.timestamp for metric in sorted(history, key=lambda one: one.step)]
        assert run.info.start_time <= times_ms[0]
        assert times_ms == sorted(times_ms)
        assert times_ms[-1] <= run.info.end_time


CLOCK_SET_BACK = """
import time
now, now_ns = time.time, time.time_ns
time.time = lambda: now() - 3600
time.time_ns = lambda: now_ns() - 3600 * 10**9
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    disk = tmp_path / "state"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_stops_the_sweep_until_there_is_room(
    small_disk: Path, tmp_path: Path, expected: dict[str, Curve]
) -> None:
    folder = SweepFolder(tmp_path, LONG)
    driver = folder.start()
    driver.wait_for(lambda: steps(folder) > 2000)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))
    assert driver.end() == 1, driver.output
    assert "stopped before the end: " in driver.output
    assert "again   sweeps run sweep.yaml" in driver.output
    assert "Traceback" not in driver.output
    refused = folder.run()
    assert refused.returncode == 2, refused.stdout
    assert "is not writable (No space left on device)" in refused.stderr

    (small_disk / "filler").unlink()
    again = folder.run()
    assert again.returncode == 0, again.stdout + again.stderr
    folder.assert_all_finished_as_if_undisturbed(expected)


def test_read_only_storage_and_one_that_is_too_small_are_refused(
    small_disk: Path, tmp_path: Path
) -> None:
    folder = SweepFolder(tmp_path, LONG)
    many = folder.run("run", "sweep.yaml", f"seed={','.join(map(str, range(300)))}")
    assert many.returncode == 2, many.stdout
    assert "the sweep needs about " in many.stderr
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = folder.run()
    assert refused.returncode == 2, refused.stdout
    assert "is not writable (Read-only file system)" in refused.stderr
    assert "Traceback" not in refused.stderr + many.stderr


def saved_steps(folder: SweepFolder) -> int:
    """The steps of the newest checkpoints, all trials together."""
    total = 0
    for path in folder.folder.glob("trials/*/checkpoint.safetensors"):
        with safetensors.safe_open(path, framework="pt") as file:
            total += json.loads(file.metadata()["state"])["step"]
    return total


def steps(folder: SweepFolder) -> int:
    """The steps that the driver knows of, all trials together."""
    path = folder.path / "state/sweeps/long/outbox.db"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as database:
        try:
            return int(database.execute("SELECT sum(step) FROM trials").fetchone()[0] or 0)
        except sqlite3.OperationalError:  # it is being made
            return 0
