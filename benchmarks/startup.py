"""What a command costs beyond its work: `sweeps run` of a trivial trial beside a bare Ray start.

The bare start is `ray.init` with 2 CPUs and no dashboard, one actor that imports torch, and the
shutdown. It runs in turn with sweeps of one trial of one step: on a store that has 38 trials
already, and on a new one. The other commands run once a round on the same store.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.commands import OTHER_SERVICES, PYTHON, QUIET, SWEEPS
from benchmarks.measuring import BenchmarkOptions, Samples, print_section, print_table
from tests.processes import descendants
from trainables.data.verse import write_play

ANALYSIS = str(Path(SWEEPS).parent / "analysis")
TRIALS = 38
LOOK_S = 0.05  # between two looks at the processes
LEFT_S = 10.0  # how long processes that a command leaves are waited for
PR_SET_CHILD_SUBREAPER = 36
SWEEP = """
name: {name}
corpus: file:{folder}/play.txt
training: {{max_steps: 1, eval_every: 1, batch_size: 1, block_size: 2}}
arms:
  - model: {{variant: bigram}}
    grid: {{training.learning_rate: [{rates}]}}
"""
BARE = """
import ray

ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote
class Actor:
    def load(self):
        import torch

actor = Actor.remote()
ray.get(actor.load.remote())
ray.shutdown()
"""
ABOUT = f"""Seconds from the command to its end: median (least to most). Processor seconds are those
of all processes that it started. Times bare: the ratio of the medians to the bare Ray start. A
trial is one step of a bigram; the existing store has {TRIALS} of them, of another sweep."""


@dataclass(frozen=True)
class CommandCost:
    """The time that a command took, and that of the processors."""

    wall_s: float
    cpu_s: float  # user and system, of all its processes


def run(options: BenchmarkOptions) -> None:
    print_section("startup", ABOUT, torch.device("cpu"))
    _adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "play.txt").write_text(write_play(characters=20_000))
        commands = _commands(folder)
        _run_sweep(folder, "stored", folder / "state", TRIALS)
        found: dict[str, list[CommandCost]] = {way: [] for way in commands}
        for number in range(options.rounds + (not options.is_quick)):
            for way, command in commands.items():
                cost = command(number)
                if number or options.is_quick:  # the first round fills the caches of the machine
                    found[way].append(cost)
    print_table(_rows(found))


def _commands(folder: Path) -> dict[str, Callable[[int], CommandCost]]:
    """Return what is measured, by name; each is given the number of its round."""
    state = folder / "state"
    quickstart = partial(_cost, folder, SWEEPS, "run", "quickstart", "--state")
    return {
        "bare Ray start": lambda number: _cost(folder, PYTHON, "-c", BARE),
        "one trial, existing store": lambda number: _run_sweep(folder, f"old-{number}", state),
        "one trial, new store": lambda number: _run_sweep(
            folder, f"new-{number}", folder / f"state-{number}"
        ),
        "sweeps run quickstart, new store": lambda number: quickstart(f"quickstart-{number}"),
        "sweeps plan quickstart": lambda number: _cost(folder, SWEEPS, "plan", "quickstart"),
        "analysis --help": lambda number: _cost(folder, ANALYSIS, "--help"),
        f"analysis rankings, {TRIALS} trials": lambda number: _cost(
            folder, ANALYSIS, "rankings", "stored", "--state", str(state)
        ),
    }


def _run_sweep(folder: Path, name: str, state: Path, trials: int = 1) -> CommandCost:
    """Run a sweep of trivial trials."""
    rates = ", ".join(f"{1 + number}e-3" for number in range(trials))
    path = folder / f"{name}.yaml"
    path.write_text(SWEEP.format(name=name, folder=folder, rates=rates))
    return _cost(folder, SWEEPS, "run", str(path), "--state", str(state))


def _rows(found: dict[str, list[CommandCost]]) -> Iterator[dict[str, object]]:
    bare = _samples(next(iter(found.values())))
    for way, costs in found.items():
        wall, cpu = _samples(costs)
        yield {
            "command": way,
            "wall, s": wall,
            "times bare": wall.median / bare[0].median,
            "processors, s": cpu,
            "times bare, processors": cpu.median / bare[1].median,
        }


def _samples(costs: Sequence[CommandCost]) -> tuple[Samples, Samples]:
    return Samples([cost.wall_s for cost in costs]), Samples([cost.cpu_s for cost in costs])


def _adopt_orphans() -> None:
    """Make this process the parent of those that a command leaves, so that their time counts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _cost(folder: Path, *command: str) -> CommandCost:
    """Run a command in a folder, and look at the times of its processes until all have ended.

    A parent that ignores SIGCHLD, as Ray's raylet does, never learns the times of its children.

    Raises:
        RuntimeError: the command failed; the message has the end of its output.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SERVICES}
    cpu_s: dict[int, float] = {}
    wall_s = None
    with tempfile.TemporaryFile("w+") as output:
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment | QUIET, stdout=output, stderr=output
        )
        while wall_s is None or time.perf_counter() < started_s + wall_s + LEFT_S:
            cpu_s |= {pid: _cpu_s(pid) or cpu_s.get(pid, 0) for pid in _family()}
            if wall_s is None and process.poll() is not None:
                wall_s = time.perf_counter() - started_s
            if wall_s is not None and not _reap():
                break
            time.sleep(LOOK_S)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{command} failed: {output.read()[-2_000:]}")
    return CommandCost(wall_s or 0, sum(cpu_s.values()))


def _family() -> list[int]:
    return [pid for pid, _ in descendants(os.getpid())]


def _reap() -> bool:
    """Collect a process that has ended; return whether others are left."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _cpu_s(pid: int) -> float:
    """Return the user and system seconds of a process, without its children; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
