"""Where Ray starts: in odd places it does, and where it cannot, or ends, a line says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from sweeps.cli.run import _start_ray
from sweeps.cluster import ray_environment
from sweeps.cluster.ray_environment import RAY_BYTES, SOCKET_BYTES, scratch_folder
from sweeps.process import signals
from sweeps.records.outbox import Outbox
from sweeps.records.outbox_file import OUTBOX
from tests.processes import descendants
from tests.sweeps.running import BIN, SweepFolder
from tests.sweeps.waiting import SWEEP, WaitingFolder
from trainables.errors import UserError
from trainables.persistence.scratch import FRESH_S, SCRATCH, ScratchFolder

SMALL = """
name: small
corpus: file:play.txt
training: {max_steps: 4, eval_every: 2, batch_size: 4}
arms: [{model: {variant: bigram}}]
"""
NET = """
from dataclasses import dataclass

import part_of_net
import torch
from bigram_models import LanguageModel


class Net(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.row = torch.nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids_BT):
        import another_part

        return self.row.expand(*ids_BT.shape, -1)
"""
NO_WORKER = """
import os, sys
if any("default_worker.py" in word for word in getattr(sys, "orig_argv", [])):
    os.write(2, b"no worker today\\n")
    os._exit(3)
"""
IMPATIENT = """
import sys
from sweeps.cluster.ray_environment import prepare_ray
prepare_ray(None)
from sweeps.cluster import connection as cluster
cluster.WORKER_S = 10.0
from sweeps.__main__ import main
main()
"""
SLOW = """
import sys
from sweeps.cluster.ray_environment import prepare_ray
prepare_ray(None)
import ray
init, failures = ray.init, [{times}]

def slow(*arguments, **options):
    found = init(*arguments, **options)
    if failures[0]:
        failures[0] -= 1
        raise Exception("The current node timed out during startup. This could happen because.")
    return found

ray.init = slow
from sweeps.__main__ import main
main()
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", [1, 2])
def test_ray_that_is_slow_to_start_is_started_once_more(times: int, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, SMALL)
    done = subprocess.run(
        [sys.executable, "-P", "-c", SLOW.format(times=times), "run", "sweep.yaml"],
        cwd=folder.path, env={**os.environ}, capture_output=True, text=True, timeout=250,
        check=False,
    )  # fmt: skip
    if times == 1:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1/1 done" in done.stdout
    else:
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert "timed out during startup" in line
        assert "run the same command again" in line


@pytest.mark.timeout(300)
def test_a_space_in_every_path_and_modules_named_like_libraries_change_nothing(
    tmp_path: Path,
) -> None:
    """The environment's path, TMPDIR and the working directory are all odd."""
    environment = tmp_path / "an environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    packages.rmdir()
    packages.symlink_to(sysconfig.get_path("purelib"))
    script = environment / "bin/sweeps"
    script.write_text((BIN / "sweeps").read_text())
    sweep = SMALL.replace("]", ', {model: {variant: "net:Net"}}]')
    folder = SweepFolder(tmp_path / "a folder", sweep)
    (folder.path / "net.py").write_text(NET)
    for part in ("part_of_net", "another_part"):
        (folder.path / f"{part}.py").touch()
    for name in ("queue", "yaml", "pandas", "analysis", "sweeps"):
        (folder.path / f"{name}.py").write_text(f"raise SystemExit('{name} is hidden')\n")
    (folder.path / "trainables").mkdir()
    (folder.path / "trainables/__init__.py").touch()
    temporary = tmp_path / ("long" * 30)
    temporary.mkdir()
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    done = subprocess.run(
        [str(environment / "bin/python"), str(script), "run", "sweep.yaml"],
        cwd=folder.path, env={**environ, "TMPDIR": str(temporary)}, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 done" in done.stdout
    assert not list(temporary.glob(f"{SCRATCH}*"))


@pytest.mark.timeout(300)
def test_workers_that_cannot_start_end_the_sweep_with_the_reason(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, SMALL)
    (tmp_path / "sitecustomize.py").write_text(NO_WORKER)
    done = subprocess.run(
        [sys.executable, "-P", "-c", IMPATIENT, "run", "sweep.yaml"],
        cwd=folder.path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no worker of Ray answered within 10 s; raylet.err ends with: no worker" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("daemon", ["gcs_server", "raylet"])
def test_a_process_of_ray_that_dies_ends_the_sweep_soon(daemon: str, tmp_path: Path) -> None:
    folder = WaitingFolder(tmp_path, SWEEP.replace("[1, 2]", "[1]"))
    driver = folder.start()
    driver.wait_for(lambda: bool(driver.workers) and len(folder.runs()) == 1)
    running = descendants(driver.process.pid)
    for unread in ("autoscaler", "dashboard/dashboard.py", "log_monitor.py"):
        assert not any(unread in title for _, title in running)
    workers = [title for _, title in running if title.startswith("ray::") and "Agent" not in title]
    assert len(workers) == 1, workers
    (pid,) = (pid for pid, title in running if title.split()[0].endswith(f"/{daemon}"))
    killed_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert driver.end() == 130, driver.output
    assert time.monotonic() - killed_s < 15
    assert f"stopped before the end: Ray's process {daemon} died" in driver.output
    assert driver.output.endswith("again   sweeps run sweep.yaml\n")
    assert "Traceback" not in driver.output
    assert [run.info.status for run in folder.runs("sweep") + folder.runs()] == ["KILLED"] * 2


@pytest.mark.parametrize(
    ("is_command", "status", "starts"),
    [
        (True, "", True),
        (True, "KILLED", True),
        (True, "FINISHED", False),
        (False, "KILLED", False),  # a program that uses our functions
    ],
)
def test_ray_starts_ahead_if_a_command_has_trials_to_train(
    is_command: bool, status: str, starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if status:
        outbox = Outbox(tmp_path / "sweeps/small" / OUTBOX, "small")
        outbox.end(status)
        outbox.close()
    monkeypatch.setattr(signals, "are_watched", lambda: is_command)
    monkeypatch.setattr("sweeps.cluster.ray_start.RayStart", lambda: "started")
    assert _start_ray("small", tmp_path) == ("started" if starts else None)


def test_processes_that_start_others_are_killed_with_all_of_them() -> None:
    from sweeps.cluster import ray_processes  # loads Ray

    before = ray_processes.descendants()
    forks = "while true; do sleep 7.123 & sleep 0.005; done"
    with subprocess.Popen(["sh", "-c", f"for i in 1 2 3; do sh -c '{forks}' & done; wait"]):
        time.sleep(0.5)
        assert len(ray_processes.descendants() - before) > 5
        ray_processes.kill_descendants(before)
    time.sleep(0.2)
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if "7.123" in (process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    assert left == []


def test_temporary_files_go_where_sockets_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = Path(tempfile.mkdtemp(dir="/tmp")), tmp_path / ("x" * SOCKET_BYTES)
    long.mkdir()
    monkeypatch.setattr(ray_environment, "BASES", (str(short),))
    for unusable in (long, Path("/proc"), tmp_path / "absent"):
        monkeypatch.setattr(tempfile, "tempdir", str(unusable))
        with scratch_folder() as folder:
            assert folder.parents[1] == short
            assert folder.parent.stat().st_mode & 0o077 == 0
            short.chmod(0o755)
            if os.getuid() == 0:
                listing = subprocess.run(["ls", folder], user="nobody", capture_output=True)
                assert b"Permission denied" in listing.stderr
            assert (
                len(str(folder))
                + len("/session_2026-01-01_00-00-00_000000_4194304")
                + len("/sockets/plasma_store")
                <= len(str(short)) + RAY_BYTES
            )
        assert not folder.parent.exists()
    short.rmdir()


def test_no_place_for_temporary_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_environment, "BASES", ("/proc",))
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(UserError, match="name one by TMPDIR"), scratch_folder():
        pytest.fail("it was made")


def test_a_folder_that_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path;"
        "from trainables.persistence.scratch import ScratchFolder;"
        f"folder = ScratchFolder(Path({str(tmp_path)!r})); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (abandoned,) = tmp_path.iterdir()
    fresh = ScratchFolder(tmp_path)
    assert abandoned.exists()  # it may be the one of a process that has not locked it yet
    old_s = time.time() - 2 * FRESH_S
    os.utime(abandoned, (old_s, old_s))
    os.utime(fresh.path, (old_s, old_s))
    (tmp_path / "sweeps-file").touch()
    newest = ScratchFolder(tmp_path)
    assert not abandoned.exists()
    assert fresh.path.exists()
    for folder in (fresh, newest, newest):
        folder.remove()
        assert not folder.path.exists()
