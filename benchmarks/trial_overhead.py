"""What a trial costs beyond its training: sweeps of trials that do almost no work.

    python -m benchmarks.trial_overhead [--trials 200] [--search]

Runs `sweeps run` as a user does, once with few trials and once with many; the difference in time
over the difference in number is the cost of a trial, tracking and artifacts included, and the rest
is start-up. With --search the trials are suggested by a study. Whether the cost grows is seen from
the times at which the trials of each quarter were started.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trainables.verse import write_play

FEW = 4
QUARTERS = 4
SWEEP = """
name: overhead
corpus: file:{folder}/play.txt
training: {{max_steps: 1, eval_every: 1, batch_size: 1, block_size: 2}}
"""
GRID = """
replicates: {trials}
arms:
  - model: {{variant: bigram}}
"""
SEARCH = """
arms:
  - model: {{variant: attention}}
    search:
      model.pe_type: [randn, sinpe, rope]
      model.n_embd: [4, 8, 16]
      training.learning_rate: {{low: 1e-4, high: 1, log: true}}
search: {{trials: {trials}, confirm: null}}
"""


def seconds_of_a_sweep(trials: int, kind: str) -> tuple[float, list[float]]:
    """Seconds of a whole `sweeps run`, and seconds a trial in each quarter of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "play.txt").write_text(write_play(characters=20_000))
        text = (SWEEP + kind).format(folder=folder, trials=trials)
        (folder / "sweep.yaml").write_text(text)
        command = [str(Path(sys.executable).parent / "sweeps"), "run", "sweep.yaml"]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        whole_s = time.perf_counter() - started
        with contextlib.closing(sqlite3.connect(folder / "state/sweeps/overhead/outbox.db")) as box:
            rows = box.execute("SELECT started_ms FROM trials ORDER BY started_ms").fetchall()
    size = trials // QUARTERS
    marks = [rows[min(size * quarter, len(rows) - 1)][0] for quarter in range(QUARTERS + 1)]
    return whole_s, [(b - a) / 1000 / size for a, b in itertools.pairwise(marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--search", action="store_true")
    given = parser.parse_args()
    kind, trials = SEARCH if given.search else GRID, given.trials
    few_s, _ = seconds_of_a_sweep(FEW, kind)
    many_s, by_quarter = seconds_of_a_sweep(trials, kind)
    per_trial_s = (many_s - few_s) / (trials - FEW)
    print(f"{FEW} trials {few_s:.1f} s, {trials} trials {many_s:.1f} s:")
    print(f"{per_trial_s:.3f} s a trial, start-up {few_s - FEW * per_trial_s:.1f} s")
    print("by quarter: " + ", ".join(f"{seconds:.3f}" for seconds in by_quarter) + " s a trial")


if __name__ == "__main__":
    main()
