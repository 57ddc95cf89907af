"""The published sweep, from the command to its end: ours, plain loops, and plain Ray Tune."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import (
    Asked,
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
    Came,
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
first trial starts. The plain trials look at 200 random batches a split, ours at every token of it;
the mean of the last validation losses shows that they did the same work. Where Ray is missing, ours
are our workers without it and MLflow. The share is of the measured rate of matrix products, by the
operations that the definitions of all trials have in their steps, evaluations not counted."""


def run(asked: Asked) -> None:
    device = best_device()
    print_section("sweep", ABOUT, device)
    limits = measure_limits(device)
    print(f"{limits}.\n")
    for seeds in asked.seeds or ((1, SEEDS) if asked.is_full else (1,)):
        compare(asked, seeds, limits)


def compare(asked: Asked, seeds: int, limits: Limits) -> None:
    """Print the table of all ways of running the sweep with so many seeds."""
    steps, device = asked.max_steps, best_device()
    size = (f"training.max_steps={steps}", f"training.eval_every={min(steps, EVAL_EVERY)}")
    overrides = [
        f"corpus={asked.corpus_name}",
        f"replicates={seeds}",
        "resources.max_concurrent=2",
        f"resources.gpus_per_trial={'auto' if device.type == 'cuda' else 0}",
        *(QUICK if asked.is_quick else size),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(PRESET, overrides, State(folder))
        trials = plain_trials(plan, asked.is_quick)
        found: dict[str, list[Came]] = {}
        for _ in range(asked.rounds):
            for way in (WAYS[name] for name in asked.ways):
                if way == LOOP and seeds > 1:
                    continue  # it takes hours
                came = run_plain(way, trials, asked.corpus_name, asked.corpora, device.type)
                found.setdefault(way, []).append(came)
            if importlib.util.find_spec("ray"):
                way, ours = OURS, run_ours(folder, PRESET, PRESET, *overrides)
            else:
                way, ours = BARE, run_bare(asked.corpora, PRESET, *overrides)
            found.setdefault(way, []).append(ours)
    ours_s = Samples([came.ran.wall_s for came in found[way]])
    operations = sum(operations_of_trial(trial, plan.corpus.vocab_size) for trial in trials)
    least_s = operations / limits.operations_per_s.median
    print_table([row(way, seeds, came, ours_s, least_s) for way, came in found.items()])


def plain_trials(plan: Plan, is_quick: bool) -> list[PlainConfig]:
    """The trials of a plan for the plain ways."""
    fields = PlainConfig.__dataclass_fields__.keys() - {"eval_batches"}
    return [
        PlainConfig(
            **{name: value for name, value in trial.flat.items() if name in fields},
            eval_batches=QUICK_BATCHES if is_quick else PlainConfig.eval_batches,
        )
        for trial in plan.trials
    ]


def operations_of_trial(trial: PlainConfig, vocab_size: int) -> int:
    """Operations of the matrix products of all its steps, by its definition."""
    B, T, D, V = trial.batch_size, trial.block_size, trial.n_embd, vocab_size
    a_step = {
        "attention": attention_operations(B, T, D, V),
        "factorized": 3 * 2 * B * T * D * V,  # the head, forward and both gradients
        "bigram": 0,  # a lookup
    }[trial.variant]
    return trial.max_steps * a_step


def row(
    way: str, seeds: int, came: Sequence[Came], ours_s: Samples, least_s: float
) -> dict[str, object]:
    wall_s = Samples([one.ran.wall_s for one in came])
    return {
        "way": way,
        "seeds": seeds,
        "trials": came[0].trials,
        "tokens": f"{came[0].tokens:,}",
        "wall, s": wall_s,
        "start-up, s": Samples([one.start_up_s for one in came]),
        "this / ours": wall_s.median / ours_s.median,
        "share": least_s / wall_s.median,
        "GPU busy, %": came[0].ran.gpu_busy,
        "val_loss": f"{came[0].val_loss:.4f}",
        "own process, MiB": max(one.ran.own_mib for one in came),
        "all processes, MiB": max(one.ran.all_mib for one in came),
    }
