"""The published sweep, from the command to its end: ours, plain loops, and plain Ray Tune."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    BenchmarkOptions,
    Limits,
    Samples,
    best_device,
    measure_limits,
    print_section,
    print_table,
)
from benchmarks.operations import attention_operations
from benchmarks.plain_loop import PlainConfig
from benchmarks.ways import (
    BARE,
    LOOP,
    LOOPS,
    OURS,
    TUNE,
    TUNE_REUSING,
    WayResult,
    run_bare,
    run_ours,
    run_plain,
)
from sweeps.planning.plan import Plan
from sweeps.planning.planner import make_plan
from sweeps.records.state import State

PRESET = "published"
EVAL_EVERY = 500  # steps
SEEDS = 5
QUICK = (  # a bigram, a factorisation, and one attention
    "model.n_embd=16",
    "model.pe_type=rope",
    "training.block_size=8",
    "training.max_steps=2",
)
QUICK_BATCHES = 2
WAYS = {"loop": LOOP, "loops": LOOPS, "tune": TUNE, "tune-reusing": TUNE_REUSING}
ABOUT = """Wall seconds from the command to its end: median (least to most). Start-up is until the
first trial starts, training until the last one ends. The plain trials look at 200 random batches a
split, ours at every token of it; the mean of the last validation losses shows that they did the
same work. Where Ray is missing, ours are our workers without it and MLflow. The share is of the
measured rate of matrix products, by the operations that the definitions of all trials have in their
steps, evaluations not counted."""


def run(options: BenchmarkOptions) -> None:
    device = best_device()
    print_section("sweep", ABOUT, device)
    limits = measure_limits(device)
    print(f"{limits}.\n")
    for seeds in options.seeds or ((1, SEEDS) if options.is_full else (1,)):
        compare(options, seeds, limits)


def compare(options: BenchmarkOptions, seeds: int, limits: Limits) -> None:
    """Print a table of all ways of running the sweep with this number of seeds."""
    steps, device = options.max_steps, best_device()
    size = (f"training.max_steps={steps}", f"training.eval_every={min(steps, EVAL_EVERY)}")
    overrides = [
        f"corpus={options.corpus_name}",
        f"replicates={seeds}",
        "resources.max_concurrent=2",
        f"resources.gpus_per_trial={'auto' if device.type == 'cuda' else 0}",
        *(QUICK if options.is_quick else size),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(PRESET, overrides, State(folder))
        trials = plain_trials(plan, options.is_quick)
        results: dict[str, list[WayResult]] = {}
        for _ in range(options.rounds):
            for way in (WAYS[name] for name in options.ways):
                if way == LOOP and seeds > 1:
                    continue  # it takes hours
                plain = run_plain(way, trials, options.corpus_name, options.corpora, device.type)
                results.setdefault(way, []).append(plain)
            if importlib.util.find_spec("ray"):
                way, ours = OURS, run_ours(folder, PRESET, PRESET, *overrides)
            else:
                way, ours = BARE, run_bare(options.corpora, PRESET, *overrides)
            results.setdefault(way, []).append(ours)
    ours_s = Samples([result.command.wall_s for result in results[way]])
    operations = sum(operations_of_trial(trial, plan.corpus.vocab_size) for trial in trials)
    least_s = operations / limits.operations_per_s.median
    print_table([row(way, seeds, of_way, ours_s, least_s) for way, of_way in results.items()])


def plain_trials(plan: Plan, is_quick: bool) -> list[PlainConfig]:
    """Return the trials of a plan as the plain ways take them."""
    fields = PlainConfig.__dataclass_fields__.keys() - {"eval_batches"}
    batches = QUICK_BATCHES if is_quick else PlainConfig.eval_batches
    settings: list[dict[str, Any]] = [  # Any: a field's type depends on its name
        {name: value for name, value in trial.flat.items() if name in fields}
        for trial in plan.trials
    ]
    return [PlainConfig(**values, eval_batches=batches) for values in settings]


def operations_of_trial(trial: PlainConfig, vocab_size: int) -> int:
    """Return the operations of the matrix products in all steps of a trial, by its definition."""
    B, T, D, V = trial.batch_size, trial.block_size, trial.n_embd, vocab_size
    a_step = {
        "attention": attention_operations(B, T, D, V),
        "factorized": 3 * 2 * B * T * D * V,  # the head, forward and both gradients
        "bigram": 0,  # a lookup
    }[trial.variant]
    return trial.max_steps * a_step


def row(
    way: str, seeds: int, results: Sequence[WayResult], ours_s: Samples, least_s: float
) -> dict[str, object]:
    wall_s = Samples([result.command.wall_s for result in results])
    return {
        "way": way,
        "seeds": seeds,
        "trials": results[0].trials,
        "tokens": f"{results[0].tokens:,}",
        "wall, s": wall_s,
        "start-up, s": Samples([result.start_up_s for result in results]),
        "training, s": Samples([result.training_s for result in results]),
        "the end, s": Samples([result.end_s for result in results]),
        "this / ours": wall_s.median / ours_s.median,
        "share": least_s / wall_s.median,
        "GPU busy, %": results[0].command.gpu_busy,
        "val_loss": f"{results[0].val_loss:.4f}",
        "own process, MiB": max(result.command.own_mib for result in results),
        "all processes, MiB": max(result.command.all_mib for result in results),
    }
