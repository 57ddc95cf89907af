"""The cost of faults: a sweep of 38 trials undisturbed, under each kind of fault, under all.

    python -m benchmarks.fault_soak [--steps 300] [--seed 1]

Every sweep is a real `sweeps run` against a real MLflow server on this machine. A random worker is
killed (SIGKILL) every few seconds; the driver is killed at random moments, and the same command is
run again; the server is unreachable for 20 s, and answers one request in twenty with 500, before or
after it has handled the request. Trials lost, runs doubled and losses that differ from the
undisturbed sweep must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sweeps.server.ui import mlflow_ui
from tests.sweeps.faulty_proxy import FaultyProxy
from tests.sweeps.running import Curve, SweepFolder, WorkerKiller

SWEEP = """
name: soak
corpus: embedded
training: {{max_steps: {steps}, eval_every: 100}}
arms:
  - model: {{variant: "counted:CountedBigram"}}
  - model: {{variant: "counted:CountedFactorized", n_embd: 384}}
  - model: {{variant: "counted:CountedAttention"}}
    grid:
      model.pe_type: [randn, sinpe, rope]
      model.n_embd: [64, 128, 256]
      training.block_size: [8, 16, 32, 64]
"""
COUNTED = """
import os
import torch
from bigram_models import VARIANTS

class StepCounter:
    def forward(self, ids_BT):
        if torch.is_grad_enabled():  # a step, not an evaluation
            path = os.path.join(os.environ["COUNTS"], str(os.getpid()))
            with open(path, "ab", 0) as file:
                file.write(b".")
        return super().forward(ids_BT)

class CountedBigram(StepCounter, VARIANTS["bigram"]): pass
class CountedFactorized(StepCounter, VARIANTS["factorized"]): pass
class CountedAttention(StepCounter, VARIANTS["attention"]): pass
"""
WORKER_KILLS_S = (4.0, 12.0)  # from one to the next
DRIVER_KILLS_S = (15.0, 45.0)
DRIVER_KILLS = 5
AWAY_AFTER_S, AWAY_S = 30.0, 20.0
ERROR_RATE = 0.05
FAULTS = {
    "none": set(),
    "workers": {"workers"},
    "drivers": {"drivers"},
    "all": {"workers", "drivers", "server"},
}


@dataclass
class SoakResult:
    """The result of one sweep."""

    seconds: float
    worker_kills: int
    driver_kills: int
    errors: int
    statuses: list[str]
    curves: dict[str, Curve]
    doubled: int  # runs beyond the first of their key
    steps: int  # of all workers, repeated ones included


def soak(
    folder: SweepFolder, proxy: FaultyProxy, faults: set[str], chance: random.Random
) -> SoakResult:
    """Run the sweep to its end under these kinds of faults."""
    started_s = time.monotonic()
    proxy.error_rate, proxy.errors = (ERROR_RATE if "server" in faults else 0.0), 0
    away = threading.Timer(AWAY_AFTER_S, lambda: be_away(proxy))
    if "server" in faults:
        away.start()
    worker_kills = driver_kills = 0
    drivers = set()
    while True:
        driver = folder.start()
        drivers.add(str(driver.process.pid))  # it takes some steps for its estimate
        killer = WorkerKiller(driver, chance, WORKER_KILLS_S) if "workers" in faults else None
        is_last = "drivers" not in faults or driver_kills == DRIVER_KILLS
        ended = driver.wait(None if is_last else chance.uniform(*DRIVER_KILLS_S))
        if not ended:
            driver.kill()
            driver_kills += 1
        worker_kills += killer.stop() if killer else 0
        if ended:
            break
    seconds = time.monotonic() - started_s
    assert driver.process.returncode == 0, driver.output
    proxy.error_rate = 0
    runs = folder.runs()
    by_key = {run.data.tags["key"]: run for run in runs}
    counts = Path(folder.environment["COUNTS"]).iterdir()
    return SoakResult(
        seconds=seconds,
        worker_kills=worker_kills,
        driver_kills=driver_kills,
        errors=proxy.errors,
        statuses=[run.info.status for run in runs],
        curves={key: folder.curve(run) for key, run in by_key.items()},
        doubled=len(runs) - len(by_key),
        steps=sum(file.stat().st_size for file in counts if file.name not in drivers),
    )


def be_away(proxy: FaultyProxy) -> None:
    with proxy.away():
        time.sleep(AWAY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    print("| faults | seconds | workers killed | drivers killed | 500s | finished | runs doubled"
          " | losses that differ | steps taken again | seconds lost per kill |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    undisturbed: SoakResult | None = None
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # where the server keeps artifacts
        for faults, kinds in FAULTS.items():
            path = Path(name) / faults
            with mlflow_ui(f"sqlite:///{name}/{faults}.db", log_file=path / "server.log") as url:
                proxy = FaultyProxy(url, seed=arguments.seed)
                sweep = SWEEP.format(steps=arguments.steps)
                folder = SweepFolder(path, sweep, tracking_uri=proxy.url)
                (path / "counted.py").write_text(COUNTED)
                (path / "counts").mkdir()
                folder.environment["COUNTS"] = os.environ["COUNTS"] = str(path / "counts")
                sys.path.insert(0, str(path))
                result = soak(folder, proxy, kinds, chance)
                proxy.close()
            undisturbed = undisturbed or result
            kills = result.worker_kills + result.driver_kills
            differ = sum(
                result.curves.get(key) != curve for key, curve in undisturbed.curves.items()
            )
            lost_s = f"{(result.seconds - undisturbed.seconds) / kills:.1f}" if kills else ""
            print(f"| {faults} | {result.seconds:.0f} | {result.worker_kills}"
                  f" | {result.driver_kills} | {result.errors}"
                  f" | {result.statuses.count('FINISHED')} of 38 | {result.doubled} | {differ}"
                  f" | {result.steps - 38 * arguments.steps} | {lost_s} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
