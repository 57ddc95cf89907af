"""The cost of a trial beyond its training, from sweeps of trials that do almost no work.

Runs `sweeps run` as a user does, once with few trials and once with many. The difference in time
over the difference in number is the cost of a trial, tracking and artifacts included; the rest is
start-up. With --search a study suggests the trials. The start times of each quarter of the trials
show whether the cost grows. Plain Ray Tune runs fewer of the same trials: its cost of a trial is
large enough to show.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.measuring import BenchmarkOptions, Samples, digits, print_section, print_table
from benchmarks.plain_loop import PlainConfig
from benchmarks.ways import OURS, TUNE, TUNE_REUSING, WayResult, run_ours, run_plain
from trainables.data.verse import write_play

FEW = 4
QUARTERS = 4
TRIALS, TRIALS_FULL, TRIALS_QUICK = (200,), (200, 2_000, 10_000), (8,)
# Most trials of each way: a process for each trial takes seconds.
MOST_PLAIN = {"tune": (TUNE, 40), "tune-reusing": (TUNE_REUSING, 200)}
NAME, TEXT = "overhead", "play.txt"
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
ABOUT = f"""Trials of one step. Seconds: median (least to most) over rounds; a trial's cost beyond
start-up by the difference to {FEW} trials. By quarter: seconds between the starts of trials; growth
is the last over the second, as the first has the start of the workers. MiB: the most that the
driver had resident (VmHWM), and all processes together, pages that they share counted in each."""

RunTrials = Callable[[int], WayResult]  # by the number of trials


def run(options: BenchmarkOptions) -> None:
    print_section("overhead", ABOUT, torch.device("cpu"))
    size = TRIALS_QUICK if options.is_quick else TRIALS_FULL if options.is_full else TRIALS
    numbers = options.trials or size
    if min(numbers) <= FEW:
        raise SystemExit(f"--trials must be above {FEW}, which they are compared with")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / TEXT).write_text(write_play(characters=20_000))
        kind = SWEEP + (SEARCH if options.is_search else GRID)
        ways = [(OURS, partial(ours, folder, kind), numbers)]
        for way, most in (MOST_PLAIN[name] for name in options.ways if name in MOST_PLAIN):
            ways.append((way, partial(plain, folder, way), (min(most, *numbers),)))
        print_table(line for way in ways for line in rows(*way, options.rounds))


def ours(folder: Path, kind: str, trials: int) -> WayResult:
    (folder / "sweep.yaml").write_text(kind.format(folder=folder, trials=trials))
    return run_ours(folder, "sweep.yaml", NAME)


def plain(folder: Path, way: str, trials: int) -> WayResult:
    config = PlainConfig(
        "bigram", block_size=2, batch_size=1, max_steps=1, eval_every=1, eval_batches=1
    )
    configs = [replace(config, seed=number) for number in range(trials)]
    return run_plain(way, configs, f"file:{folder / TEXT}", folder, "cpu")


def rows(
    way: str, run_trials: RunTrials, numbers: Sequence[int], rounds: int
) -> list[dict[str, object]]:
    """Run each number of trials, and return a row of the table for each."""
    results: dict[int, list[WayResult]] = {}
    for _, number in itertools.product(range(rounds), (FEW, *numbers)):
        results.setdefault(number, []).append(run_trials(number))
    few = results.pop(FEW)
    return [row(way, number, few, many) for number, many in results.items()]


def row(
    way: str, trials: int, few: Sequence[WayResult], many: Sequence[WayResult]
) -> dict[str, object]:
    each_s = [
        (large.command.wall_s - small.command.wall_s) / (trials - FEW)
        for small, large in zip(few, many, strict=True)
    ]
    start_up_s = [
        small.command.wall_s - FEW * trial_s for small, trial_s in zip(few, each_s, strict=True)
    ]
    quarters = by_quarter(many[-1].started_s)
    return {
        "way": way,
        "trials": trials,
        "wall, s": Samples([result.command.wall_s for result in many]),
        "s a trial": Samples(each_s),
        "start-up, s": Samples(start_up_s),
        "by quarter, s": ", ".join(map(digits, quarters)),
        "growth": quarters[-1] / quarters[1] if quarters else "",
        "driver, MiB": max(result.command.own_mib for result in many),
        "all, MiB": max(result.command.all_mib for result in many),
    }


def by_quarter(started_s: Sequence[float]) -> list[float]:
    """Return the mean seconds between starts of trials in each quarter; empty for few trials."""
    places = [(len(started_s) - 1) * n // QUARTERS for n in range(QUARTERS + 1)]
    if len(started_s) <= QUARTERS:
        return []
    return [(started_s[b] - started_s[a]) / (b - a) for a, b in itertools.pairwise(places)]
