"""Signals stop a sweep gently or at once, and the same command continues it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import safetensors

from sweeps.process.stopping import SAME_S
from tests.processes import descendants
from tests.sweeps.running import SweepFolder, undisturbed
from tests.sweeps.waiting import WaitingFolder


@pytest.mark.faults
def test_signals_stop_gently_or_at_once_and_a_second_driver_is_refused(
    tmp_path: Path,
) -> None:
    folder = WaitingFolder(tmp_path)
    first = folder.start()
    first.wait_for(lambda: folder.steps > 0)
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
    stopped_at = folder.steps
    assert saved_steps(folder) > stopped_at  # the workers saved what they did meanwhile

    second = folder.start()
    second.wait_for(lambda: folder.steps > stopped_at)
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

    folder.go_on()
    last = folder.run()
    assert last.returncode == 0, last.stdout + last.stderr
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))


def saved_steps(folder: SweepFolder) -> int:
    """The steps of the newest checkpoints, all trials together."""
    total = 0
    for path in folder.folder.glob("trials/*/checkpoint.safetensors"):
        with safetensors.safe_open(path, framework="pt") as file:
            total += json.loads(file.metadata()["state"])["step"]
    return total
