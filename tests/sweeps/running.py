"""`sweeps` as a process in a folder, and what it left in MLflow: for the tests that run it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from mlflow import MlflowClient

from sweeps.planning.plan import Plan
from sweeps.planning.planner import make_plan
from sweeps.records.state import State
from tests.processes import STARTED, descendants
from trainables.config import TrialConfig
from trainables.data.verse import write_play
from trainables.training.loop import Evaluation, Splits, initial_state, train

BIN = Path(sys.executable).parent
WAIT_S = 150

Curve = list[tuple[int, float]]  # val_loss in nats by step


@dataclass
class SweepFolder:
    """A folder with a sweep file, its text, and the state of its runs."""

    path: Path
    sweep: str  # the content of sweep.yaml
    characters: int = 20_000
    tracking_uri: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "play.txt").write_text(write_play(characters=self.characters))
        self.write(self.sweep)

    def write(self, sweep: str) -> None:
        self.sweep = sweep
        (self.path / "sweep.yaml").write_text(sweep)

    @property
    def plan(self) -> Plan:
        before = Path.cwd()
        os.chdir(self.path)
        try:
            return make_plan("sweep.yaml", [], State(self.path / "state"))
        finally:
            os.chdir(before)

    @property
    def name(self) -> str:
        return str(yaml.safe_load(self.sweep)["name"])

    @property
    def folder(self) -> Path:
        """Where the sweep keeps its outbox and its trials."""
        return self.path / "state" / "sweeps" / self.name

    @property
    def steps(self) -> int:
        """The steps that the outbox knows of, all trials together."""
        return self._count("SELECT sum(step) FROM trials")

    @property
    def ended(self) -> int:
        """How many trials are finished or stopped, by the outbox."""
        return self._count("SELECT count(*) FROM trials WHERE status IN ('FINISHED', 'STOPPED')")

    def _count(self, query: str) -> int:
        outbox = self.folder / "outbox.db"
        if not outbox.exists():
            return 0
        with contextlib.closing(sqlite3.connect(outbox)) as database:
            try:
                return int(database.execute(query).fetchone()[0] or 0)
            except sqlite3.OperationalError:  # its tables are being made
                return 0

    def run(self, *arguments: str, name: str = "sweeps") -> subprocess.CompletedProcess[str]:
        """Run a command to its end; without arguments, the sweep."""
        return subprocess.run(
            [str(BIN / name), *(arguments or ("run", "sweep.yaml"))],
            cwd=self.path, env=self._environment(), capture_output=True, text=True,
            timeout=2 * WAIT_S, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> Driver:
        """Start the sweep, and go on at once."""
        output = (self.path / "driver.txt").open("w+")
        process = subprocess.Popen(
            [str(BIN / "sweeps"), "run", "sweep.yaml", *arguments],
            cwd=self.path,
            env=self._environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        STARTED.append(process)
        return Driver(process, self.path / "driver.txt")

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        tracking = {"MLFLOW_TRACKING_URI": self.tracking_uri} if self.tracking_uri else {}
        return inherited | tracking | self.environment

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri or f"sqlite:///{self.path}/state/mlflow.db")

    def runs(self, role: str = "trial") -> list[Any]:
        experiment = self.client.get_experiment_by_name(self.name)
        query = f"tags.role = '{role}'"
        return list(self.client.search_runs([experiment.experiment_id], query, max_results=1000))

    def by_key(self, role: str = "trial") -> dict[str, Any]:
        runs = self.runs(role)
        keys = [run.data.tags["key"] for run in runs]
        assert len(set(keys)) == len(keys), "a trial has two runs"
        return dict(zip(keys, runs, strict=True))

    def curve(self, run: Any, metric: str = "val_loss") -> Curve:
        found = self.client.get_metric_history(run.info.run_id, metric)
        return sorted((one.step, one.value) for one in found)

    def assert_all_finished_as_if_undisturbed(self, expected: dict[str, Curve]) -> None:
        """Each trial one run, FINISHED, each step once, and every loss bit for bit."""
        runs = self.by_key()
        assert runs.keys() == expected.keys()
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert {key: self.curve(run) for key, run in runs.items()} == expected
        (parent,) = self.runs("sweep")
        assert parent.info.status == "FINISHED"


@dataclass
class Driver:
    """A `sweeps run` that is under way."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert self.process.poll() is None, f"the sweep ended too early:\n{self.output}"
            assert time.monotonic() < deadline_s, f"it did not come:\n{self.output}"
            time.sleep(0.05)

    def end(self) -> int:
        return self.process.wait(2 * WAIT_S)

    def wait(self, wait_s: float | None) -> bool:
        """Whether the sweep ends within a time; None waits for it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(wait_s)
        return self.process.returncode is not None

    @property
    def workers(self) -> list[int]:
        """The processes that carry trials."""
        return [pid for pid, title in descendants(self.process.pid) if "ResourceTrain" in title]

    def kill(self, pid: int | None = None) -> None:
        os.kill(pid or self.process.pid, signal.SIGKILL)
        if pid is None:
            self.process.wait()

    def kill_worker(self) -> None:
        """Kill a worker as soon as one is seen: between two steps its process has another title."""
        seen: list[int] = []
        self.wait_for(lambda: bool(seen or seen.extend(self.workers)))
        self.kill(seen[0])


class WorkerKiller(threading.Thread):
    """Kills a random worker of a driver now and then, until told to stop."""

    def __init__(self, driver: Driver, chance: random.Random, every_s: tuple[float, float]) -> None:
        super().__init__(daemon=True)
        self.driver, self.chance, self.every_s = driver, chance, every_s
        self.kills = 0
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.enough.wait(self.chance.uniform(*self.every_s)):
            if workers := self.driver.workers:
                with contextlib.suppress(ProcessLookupError):
                    self.driver.kill(self.chance.choice(workers))
                    self.kills += 1

    def stop(self) -> int:
        """End it; return how many workers it killed."""
        self.enough.set()
        self.join()
        return self.kills


def in_process(plan: Plan, trial: TrialConfig) -> list[Evaluation]:
    """The same trial without Ray, with the one thread that a trial has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state = initial_state(trial, plan.corpus.vocab_size)
        splits = Splits.of(plan.corpus, torch.device("cpu"))
        return list(train(state, splits, trial.training, trial.seed))
    finally:
        torch.set_num_threads(threads)


def undisturbed(plan: Plan, trials: Sequence[TrialConfig] | None = None) -> dict[str, Curve]:
    """The curves of trials by key when nothing goes wrong."""
    return {
        trial.key: [(each.step, each.val_loss) for each in in_process(plan, trial)]
        for trial in (plan.trials if trials is None else trials)
    }
