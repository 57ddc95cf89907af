"""A sweep that is interrupted at any moment ends in time, says how to go on, and loses nothing.

40 moments from the first line to the last, for each whom the signal is sent to: the driver alone,
its process group (as `timeout` and a terminal do), or all its processes (as systemd and Slurm do).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import descendants
from tests.sweeps.running import Driver, SweepFolder, undisturbed

END_S = 15.0  # from the signal to the end
SWEEP = """
name: moments
corpus: file:play.txt
training: {max_steps: 9000, eval_every: 3000}
replicates: 3
arms: [{model: {variant: attention, n_embd: 64}}]
"""

logger = logging.getLogger(__name__)

Moment = Callable[[Driver, SweepFolder], bool]


def seconds(passed_s: float) -> Moment:
    """So long after the start."""
    started: dict[int, float] = {}

    def has_come(driver: Driver, folder: SweepFolder) -> bool:
        first_s = started.setdefault(driver.process.pid, time.monotonic())
        return time.monotonic() - first_s >= passed_s

    has_come.__name__ = f"{passed_s:g} s"
    return has_come


def process(title: str) -> Moment:
    """A process of Ray has started."""

    def has_come(driver: Driver, folder: SweepFolder) -> bool:
        return any(title in each for _, each in descendants(driver.process.pid))

    has_come.__name__ = f"process {title}"
    return has_come


def said(text: str) -> Moment:
    """The driver has said something."""

    def has_come(driver: Driver, folder: SweepFolder) -> bool:
        return text in driver.output

    has_come.__name__ = f"said {text}"
    return has_come


def takes_signals(driver: Driver, folder: SweepFolder) -> bool:
    """The first line has run: before that it is Python, which a signal just ends."""
    status = (Path("/proc") / str(driver.process.pid) / "status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def holds_the_lock(driver: Driver, folder: SweepFolder) -> bool:
    return str(driver.process.pid) in _text(folder.path / "state/sweeps/moments/lock.json")


def trains_for_a_second(driver: Driver, folder: SweepFolder) -> bool:
    return bool(driver.workers) and _wait(1.0)


def trains_for_five_seconds(driver: Driver, folder: SweepFolder) -> bool:
    return bool(driver.workers) and _wait(5.0)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _wait(wait_s: float) -> bool:
    time.sleep(wait_s)
    return True


START: list[Moment] = [
    takes_signals, seconds(0.5), seconds(1), seconds(2), seconds(3), holds_the_lock,
    process("gcs_server"), process("raylet/raylet"), said("started"),
]  # fmt: skip
TRAINING: list[Moment] = [trains_for_a_second, trains_for_five_seconds]
END: list[Moment] = [said("tables")]
TABLE: dict[tuple[str, signal.Signals], list[Moment]] = {
    ("driver", signal.SIGINT): [takes_signals, seconds(4), *TRAINING, *END],
    ("driver", signal.SIGTERM): [*START, *TRAINING, *END],
    ("driver", signal.SIGHUP): [takes_signals, process("gcs_server"), *TRAINING],
    ("group", signal.SIGTERM): [*START, *TRAINING, *END],
    ("group", signal.SIGINT): [seconds(2), trains_for_a_second],
    ("group", signal.SIGHUP): [trains_for_a_second],
    ("everything", signal.SIGTERM): [process("raylet/raylet"), *TRAINING, *END],
}


def send(driver: Driver, target: str, number: signal.Signals) -> None:
    match target:
        case "driver":
            os.kill(driver.process.pid, number)
        case "group":
            os.killpg(driver.process.pid, number)
        case "everything":
            for pid in [driver.process.pid, *(pid for pid, _ in descendants(driver.process.pid))]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def temporary_folders() -> set[str]:
    """Of ours; those of other tests that run now are among them."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("sweeps-*")}


def test_there_are_forty_moments() -> None:
    assert sum(map(len, TABLE.values())) == 40


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("target", "number"), TABLE, ids=lambda each: getattr(each, "name", each))
def test_a_sweep_ends_at_any_moment_and_goes_on(
    target: str, number: signal.Signals, tmp_path: Path
) -> None:
    folder = SweepFolder(tmp_path, SWEEP)
    folders = temporary_folders()
    for moment in TABLE[target, number]:
        driver = folder.start()
        deadline_s = time.monotonic() + 120
        while not moment(driver, folder):
            assert driver.process.poll() is None, f"{moment.__name__}: {driver.output}"
            assert time.monotonic() < deadline_s, f"{moment.__name__}: {driver.output}"
            time.sleep(0.002)
        os.kill(driver.process.pid, signal.SIGSTOP)  # the moment lasts until the signal is there
        sent_s = time.monotonic()
        send(driver, target, number)
        os.kill(driver.process.pid, signal.SIGCONT)
        exit_code = driver.end()
        took_s = time.monotonic() - sent_s
        logger.info("%s to %s at %s: %.1f s", number.name, target, moment.__name__, took_s)
        assert took_s < END_S, moment.__name__
        assert "Traceback" not in driver.output, moment.__name__
        if moment in END and exit_code == 0:  # it was about to end, and says nothing more
            assert "again" not in driver.output
            continue
        assert exit_code == 130, f"{moment.__name__}: {driver.output}"
        assert "again   sweeps run sweep.yaml" in driver.output, moment.__name__
    assert temporary_folders() <= folders
    last = folder.run()
    assert last.returncode == 0, last.stdout + last.stderr
    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
