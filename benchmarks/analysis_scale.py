"""Time and memory of rankings, conclusions and a report over 10,500 runs.

    python -m benchmarks.analysis_scale [--store FOLDER]

Makes an MLflow store on sqlite with 2,100 configurations of five seeds each (minutes), then runs
each command in a new process. With --store the folder is kept, or used again if it exists.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SWEEP = "scale"
GRID: dict[str, list[Any]] = {  # Any: levels of several types
    "pe_type": ["randn", "sinpe", "rope"],
    "n_embd": [16 * width for width in range(1, 11)],
    "block_size": [4 * length for length in range(1, 11)],
    "learning_rate": [1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2],
    "seed": [1, 2, 3, 4, 5],
}
COMMANDS = ("rankings", "conclusions", "report")


def fill(folder: Path) -> None:
    """Make a store in a folder with runs as `sweeps run` writes them."""
    from analysis.trials.mlflow_store import open_store

    client = open_store(f"sqlite:///{folder / 'mlflow.db'}")
    from mlflow.entities import Metric, Param, RunTag

    artifacts = (folder / "artifacts").absolute().as_uri()  # else MLflow takes ./mlruns
    experiment = client.create_experiment(SWEEP, artifact_location=artifacts)
    parent = client.create_run(experiment, tags={"role": "sweep"})
    client.set_terminated(parent.info.run_id)
    chance = np.random.default_rng(1)
    for number, values in enumerate(itertools.product(*GRID.values())):
        settings = dict(zip(GRID, values, strict=True))
        loss = (
            2.4 + 0.02 * GRID["pe_type"][::-1].index(settings["pe_type"]) + chance.normal(0, 0.004)
        )
        params = {"variant": "attention", "corpus": "made-up", "max_steps": 5000, **settings}
        tags = {"role": "trial", "sweep": SWEEP, "key": f"{number:016x}"}
        run_id = client.create_run(experiment, tags=tags, run_name=f"trial {number}").info.run_id
        metrics = [
            Metric(name, loss + 0.1 / step, step, step)
            for step in (500, 5000)
            for name in ("train_loss", "val_loss", "best_val_loss", "training_seconds")
        ]
        params_of = [Param(name, str(value)) for name, value in params.items()]
        client.log_batch(run_id, metrics, params_of, [RunTag("hardware", "none")])
        client.set_terminated(run_id)


def measure(*arguments: str) -> tuple[float, float]:
    """Run an `analysis` command, and return its seconds and peak MiB."""
    analysis = str(Path(sys.executable).parent / "analysis")
    started = time.perf_counter()
    pid = os.posix_spawn(
        analysis,
        [analysis, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: some claim is not supported
        raise SystemExit(f"analysis {arguments[0]} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path)
    store = parser.parse_args().store
    with tempfile.TemporaryDirectory() as temporary:
        folder = store or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "mlflow.db").exists():
            fill(folder)
        print("| command | seconds | peak MiB |\n|---|---|---|")
        for command in COMMANDS:
            seconds, mebibytes = measure(command, SWEEP, "--state", str(folder))
            print(f"| analysis {command} | {seconds:.1f} | {mebibytes:.0f} |", flush=True)


if __name__ == "__main__":
    main()
