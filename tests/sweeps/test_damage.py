"""What a sweep does about damaged files, a clock that is set back, and a disk that is full."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.running import undisturbed
from tests.sweeps.waiting import WaitingFolder

pytestmark = pytest.mark.faults


def test_damaged_files_and_a_clock_set_back_lose_nothing(
    tmp_path: Path,
) -> None:
    folder = WaitingFolder(tmp_path)
    driver = folder.start()
    checkpoints = folder.folder / "trials"
    driver.wait_for(lambda: len(list(checkpoints.glob("*/previous.safetensors"))) == 2)
    driver.process.terminate()
    assert driver.end() == 130
    trial = folder.plan.trials[0]
    damaged = [folder.folder / "outbox.db"]
    damaged.append(folder.folder / "trials" / trial.key / "checkpoint.safetensors")
    for path in damaged:
        os.truncate(path, path.stat().st_size // 2)
    (tmp_path / "sitecustomize.py").write_text(CLOCK_SET_BACK)
    folder.environment["PYTHONPATH"] += f":{tmp_path}"
    folder.go_on()

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
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
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


def test_a_full_disk_stops_the_sweep_until_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    folder = WaitingFolder(tmp_path)
    driver = folder.start()
    driver.wait_for(lambda: folder.steps > 0)
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
    folder.go_on()
    again = folder.run()
    assert again.returncode == 0, again.stdout + again.stderr
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))


def test_read_only_storage_and_one_that_is_too_small_are_refused(
    small_disk: Path, tmp_path: Path
) -> None:
    folder = WaitingFolder(tmp_path)
    many = folder.run("run", "sweep.yaml", f"seed={','.join(map(str, range(300)))}")
    assert many.returncode == 2, many.stdout
    assert "the sweep needs about " in many.stderr
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = folder.run()
    assert refused.returncode == 2, refused.stdout
    assert "is not writable (Read-only file system)" in refused.stderr
    assert "Traceback" not in refused.stderr + many.stderr
