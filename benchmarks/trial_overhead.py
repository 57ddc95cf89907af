"""What a trial costs beyond its training: a sweep of trials that do almost no work.

    python -m benchmarks.trial_overhead [--trials 200]

Runs `sweeps run` as a user does, once with few trials and once with many; the difference in time
over the difference in number is the cost of a trial, tracking and artifacts included, and the rest
is start-up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trainables.verse import write_play

FEW = 4
SWEEP = """
name: overhead
corpus: file:{folder}/play.txt
replicates: {trials}
training: {{max_steps: 1, eval_every: 1, batch_size: 1, block_size: 2}}
arms:
  - model: {{variant: bigram}}
"""


def seconds_of_a_sweep(trials: int) -> float:
    """Seconds of a whole `sweeps run`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "play.txt").write_text(write_play(characters=20_000))
        text = SWEEP.format(folder=folder, trials=trials)
        (folder / "sweep.yaml").write_text(text)
        command = [str(Path(sys.executable).parent / "sweeps"), "run", "sweep.yaml"]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    few_s, many_s = seconds_of_a_sweep(FEW), seconds_of_a_sweep(trials)
    per_trial_s = (many_s - few_s) / (trials - FEW)
    print(f"{FEW} trials {few_s:.1f} s, {trials} trials {many_s:.1f} s:")
    print(f"{per_trial_s:.3f} s a trial, start-up {few_s - FEW * per_trial_s:.1f} s")


if __name__ == "__main__":
    main()
