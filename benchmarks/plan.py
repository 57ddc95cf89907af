"""Time and memory of `sweeps plan` for large sweeps and texts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.commands import SWEEPS, run_command
from benchmarks.measuring import BenchmarkOptions, Samples, print_section, print_table
from trainables.data.verse import write_play

MEGABYTES, MEGABYTES_QUICK = 50, 2
SEEDS, SEEDS_QUICK = 1_000, 10
RATES, RATES_QUICK = 1_000, 10  # learning rates: configurations whose steps cost the same
SWEEP = """
name: plan
corpus: file:play.txt
arms:
  - model: {variant: attention}
    grid:
      model.n_embd: [8, 16, 32, 64]
      training.block_size: [4, 8, 16, 32, 64]
"""
ABOUT = """Seconds and MiB that it had resident at most: median (least to most) over rounds. With 20
shapes, each of which is timed; texts are planned for one trial."""


def run(options: BenchmarkOptions) -> None:
    print_section("plan", ABOUT, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        print_table(_rows(options, Path(folder)))


def _rows(options: BenchmarkOptions, folder: Path) -> Iterator[dict[str, object]]:
    megabytes = MEGABYTES_QUICK if options.is_quick else MEGABYTES
    seeds = SEEDS_QUICK if options.is_quick else SEEDS
    rates = RATES_QUICK if options.is_quick else RATES
    play = write_play(characters=1_000_000)
    (folder / "play.txt").write_text(play)
    (folder / "large.txt").write_text(play * megabytes)
    (folder / "sweep.yaml").write_text(SWEEP)
    smallest = ["model.n_embd=8", "training.block_size=8"]
    listed = ",".join(f"{1e-4 * (1 + number):.4f}" for number in range(rates))
    planned = {
        "20 trials": [],
        f"20 configurations, {seeds} seeds": [f"replicates={seeds}"],
        f"{20 * rates} configurations": [f"training.learning_rate={listed}"],
        f"{megabytes} MB of text": [*smallest, "corpus=file:large.txt"],
    }
    for title, overrides in planned.items():
        command = (SWEEPS, "plan", "sweep.yaml", *overrides)
        results = [run_command(*command, cwd=folder) for _ in range(options.rounds)]
        yield {
            "planned": title,
            "s": Samples([result.wall_s for result in results]),
            "MiB": Samples([result.own_mib for result in results]),
        }
