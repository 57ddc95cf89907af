"""A GPU in five minutes, without Ray and MLflow: are packs correct, how fast are they, and why.

Packs are compared with their trials alone. Steps of packs are timed with the plain loop beside
them. The published sweep is trained by our workers, and their time is divided into parts.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch

from benchmarks.gpu_steps import print_steps
from benchmarks.measuring import (
    BenchmarkOptions,
    best_device,
    measure_limits,
    print_section,
    print_table,
)
from benchmarks.ours import BATCH_SIZE, POSITIONS
from benchmarks.parts import CHECKPOINTS, EVALUATION, OTHER, PARTS, STEPS
from benchmarks.ways import AT_ONCE, PackTimes, WayResult, run_bare
from sweeps.execution.verify_pack import compare_packs
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.timing import one_thread

Model = Mapping[str, object]
# Packs of these models and block sizes are compared with their trials alone.
CHECKED: Sequence[tuple[Model, int]] = (
    *(({"variant": "attention", "n_embd": D}, T) for D, T in ((64, 8), (256, 8), (256, 64))),
    ({"variant": "factorized", "n_embd": 384}, 8),
    ({"variant": "bigram"}, 8),
)
CHECKED_STEPS, CHECKED_TRIALS = 300, 6
PRESET, MAX_STEPS, EVALUATIONS = "published", 5_000, 10  # of the published sweep
BRIEF_STEPS = 100  # between the two evaluations of trials from which a sweep is estimated
SEEDS, SEEDS_ESTIMATED = (1, 10), (100,)
WITHIN_S = 285.0  # of all; a sweep that has not ended then is killed
ONCE_AN_INTERVAL = (EVALUATION, CHECKPOINTS, OTHER)  # parts that come with each evaluation
QUICK_TRAINING = {"evaluation": "sampled", "eval_batches": 2}
QUICK = (
    "model.n_embd=16",
    "model.pe_type=rope",
    "training.block_size=8",
    *(f"training.{name}={value}" for name, value in QUICK_TRAINING.items()),
)
ABOUT = """Packs are compared with their trials alone: parameters after 10 steps in float64, losses
in nats after 300 steps. Steps are of packs with mixed pe_types; the share is of the measured rate
of float32 products, by the operations of the definition. Of the sweeps, start-up is from the
command to the first trial; the parts are shares of the time of two worker processes from there to
the end of the last trial. A row that begins with ~ is estimated from two intervals of 100 steps, by
one pack of each size and shape."""


def run(options: BenchmarkOptions) -> None:
    device, corpus = best_device(), options.corpus()
    print_section("gpu", ABOUT, device)
    if device.type == "cpu" and not options.is_quick:
        print("There is no GPU that torch can use; --quick shows that the section runs.\n")
        return
    began = time.perf_counter()
    deadline = math.inf if options.is_full or options.is_quick else began + WITHIN_S
    show_log()
    with one_thread():
        limits = measure_limits(device)
        print(f"{limits}.\n")
        print_table(agreement(corpus, options.is_quick))
        print_steps(corpus, limits, options.is_quick)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the processes that train need it
    print_table(sweeps(options, deadline))
    print(f"{time.perf_counter() - began:.0f} s in all.\n")


def show_log() -> None:
    """Print what our code logs: how it computes packs, and where it has to fall back."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("(%(name)s: %(message)s)"))
    for name in ("bigram_models", "trainables", "sweeps"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def agreement(corpus: Corpus, is_quick: bool) -> Iterator[dict[str, object]]:
    """Yield how far a pack of each checked shape is from its trials alone."""
    packs = [pack(corpus, *each, is_quick) for each in (CHECKED[-1:] if is_quick else CHECKED)]
    started = time.perf_counter()
    for compared in compare_packs(corpus, packs):
        first, now = compared.trials[0], time.perf_counter()
        yield {
            "variant": first.model.variant,
            "n_embd": first.flat.get("n_embd", ""),
            "block_size": first.training.block_size,
            "trials": len(compared.trials),
            "largest difference of parameters": f"{compared.parameters:.1e}",
            "of losses": f"{compared.largest:.1e}",
            "agree": compared.problem or ("yes" if compared.is_honest else "NO"),
            "seconds": now - started,
        }
        started = time.perf_counter()


def pack(corpus: Corpus, model: Model, block_size: int, is_quick: bool) -> list[TrialConfig]:
    """Return trials of one shape with several seeds, learning rates and encodings."""
    steps = {"max_steps": 20, **QUICK_TRAINING} if is_quick else {"max_steps": CHECKED_STEPS}
    training = {"block_size": block_size, "batch_size": BATCH_SIZE, **steps}
    encodings = POSITIONS if model["variant"] == "attention" else ()
    trials = []
    for number in range(2 if is_quick else CHECKED_TRIALS):
        encoding = {"pe_type": encodings[number % len(encodings)]} if encodings else {}
        rate = {"learning_rate": 1e-2 / (1 + number % 2)}
        trial = {"model": {**model, **encoding}, "training": {**training, **rate}}
        where = {"corpus": corpus.name, "corpus_digest": corpus.digest}
        trials.append(TrialConfig.from_dict({**trial, **where, "seed": 1337 + number}))
    return trials


def sweeps(options: BenchmarkOptions, deadline: float) -> Iterator[dict[str, object]]:
    """Yield the time of the published sweep with several numbers of seeds.

    Args:
        options: of the command line.
        deadline: of `time.perf_counter`, at which a sweep is killed.
    """
    measured = options.seeds or ((1,) if options.is_quick else SEEDS)
    estimated = () if options.seeds else (2,) if options.is_quick else SEEDS_ESTIMATED
    makers = {str(seeds): partial(measured_row, options, seeds) for seeds in measured}
    makers |= {f"~ {seeds}": partial(estimated_row, options, seeds) for seeds in estimated}
    for seeds, make_row in makers.items():
        try:
            yield {"seeds": seeds, **make_row(max(1.0, deadline - time.perf_counter()))}
        except (RuntimeError, TimeoutError) as error:
            yield {"seeds": seeds, "trials": " ".join(str(error).split())}


def measured_row(options: BenchmarkOptions, seeds: int, within_s: float) -> dict[str, object]:
    """Return the time of the whole sweep.

    Raises:
        TimeoutError: it took longer than `within_s` seconds.
    """
    steps, evaluations = (20, 2) if options.is_quick else (MAX_STEPS, EVALUATIONS)
    overrides = overrides_of(options, seeds, steps, steps // evaluations)
    result = run_bare(options.corpora, PRESET, *overrides, within_s=within_s)
    parts = {
        part: sum(interval[part] for pack in result.packs for interval in pack.intervals)
        for part in PARTS
    }
    return row(result, result.training_s, parts) | {"val_loss": f"{result.val_loss:.4f}"}


def estimated_row(options: BenchmarkOptions, seeds: int, within_s: float) -> dict[str, object]:
    """Return the time of the sweep, estimated from packs that train two short intervals.

    Raises:
        TimeoutError: these took longer than `within_s` seconds.
    """
    steps = 10 if options.is_quick else BRIEF_STEPS
    overrides = overrides_of(options, seeds, 2 * steps, steps)
    corpora = options.corpora
    result = run_bare(corpora, PRESET, *overrides, is_one_of_each=True, within_s=within_s)
    estimates = [whole(pack, steps) for pack in result.packs]
    parts = {part: sum(estimate[part] for estimate in estimates) for part in PARTS}
    return row(result, sum(parts.values()) / AT_ONCE, parts)


def whole(pack: PackTimes, steps: int) -> dict[str, float]:
    """Return the seconds by part of all packs like one that trained two intervals.

    Args:
        pack: of which the first interval has all that is done once, at the start.
        steps: of each interval.
    """
    first, last = pack.intervals[0], pack.intervals[-1]
    times = {
        part: (EVALUATIONS - 1) * first[part] + last[part]
        if part in ONCE_AN_INTERVAL
        else first[part] + last[part]
        for part in PARTS
    }
    times[STEPS] = first[STEPS] + (MAX_STEPS / steps - 1) * last[STEPS]
    return {part: pack.packs * seconds for part, seconds in times.items()}


def overrides_of(options: BenchmarkOptions, seeds: int, steps: int, every: int) -> list[str]:
    """Return overrides of the published sweep: its seeds, and steps between evaluations."""
    return [
        f"corpus={options.corpus_name}",
        f"replicates={seeds}",
        f"training.max_steps={steps}",
        f"training.eval_every={every}",
        f"resources.gpus_per_trial={'auto' if best_device().type == 'cuda' else 0}",
        *(QUICK if options.is_quick else ()),
    ]


def row(result: WayResult, training_s: float, parts: Mapping[str, float]) -> dict[str, object]:
    """Return the time of a sweep, and the shares of its parts in the time of the workers."""
    workers_s = max(AT_ONCE * training_s, sum(parts.values()))
    waiting_s = workers_s - sum(parts.values())
    return {
        "trials": sum(pack.packs * pack.trials for pack in result.packs),
        "packs": packs_in_words(result.packs),
        "wall, s": result.start_up_s + training_s + result.end_s,
        "start-up, s": result.start_up_s,
        "training, s": training_s,
        **{f"{part}, %": 100 * seconds / workers_s for part, seconds in parts.items()},
        "waiting, %": 100 * waiting_s / workers_s,
        "GPU busy, %": result.command.gpu_busy,
        "val_loss": "",
    }


def packs_in_words(packs: Sequence[PackTimes]) -> str:
    """Return how many packs there are of each size."""
    sizes: dict[int, int] = {}
    for each in packs:
        sizes[each.trials] = sizes.get(each.trials, 0) + each.packs
    return ", ".join(f"{sizes[size]} of {size}" for size in sorted(sizes))
