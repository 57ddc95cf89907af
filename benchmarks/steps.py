"""One trial of each shape: ours, the plain loop, and the limits of the machine.

In each round every shape takes some steps and a slice of an evaluation, plain and ours in turn,
with one thread; on a CPU two processes do so side by side, as two trials do on two cores. The
protocol evaluates every 500 steps, so a unit of work is 500 steps and one evaluation of both
splits: sampled (200 batches a split) for the plain loop as the study did it, exact (every token)
for ours.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.measuring import (
    BenchmarkOptions,
    Limits,
    Samples,
    best_device,
    gathered,
    measure_limits,
    print_section,
    print_table,
    seconds_of,
)
from benchmarks.operations import attention_bytes
from benchmarks.ours import (
    BATCH_SIZE,
    POSITIONS,
    OurTrials,
    Shape,
    operations_of,
    trials_of,
)
from benchmarks.plain_loop import PlainConfig, PlainTrial
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits
from trainables.training.timing import one_thread
from trainables.worker.heap import keep_between_steps

WIDTHS, BLOCKS = (64, 128, 256), (8, 16, 32, 64)
UNIT_STEPS, UNIT_BATCHES = 500, 200
PROCESSES = 2  # side by side on a CPU

ABOUT = """Seconds of 500 steps and one evaluation: median (least to most) over rounds and
processes. Beside it a step of ours, and what it would take if nothing but its matrix products (by
their definition) were done at the measured rate, and if nothing but its tensors were moved at the
measured bandwidth. Last, the share of that rate that ours reaches, by the operations of the
definition and by those that are executed."""


@dataclass(frozen=True)
class Slice:
    """The part of a unit of work that one measurement takes."""

    steps: int
    tokens: int  # of each split, for training and evaluation of ours
    batches: int  # of the plain loop's evaluation, for each split


SLICE, SLICE_GPU, SLICE_QUICK = Slice(50, 131_073, 10), Slice(100, 1 << 30, 20), Slice(2, 2_049, 1)


@dataclass(frozen=True)
class Measurements:
    """The measurements of one process, round by round."""

    limits: list[Limits]
    units: dict[Shape, list[dict[str, float]]]


def run(options: BenchmarkOptions) -> None:
    device = best_device()
    print_section("steps", ABOUT, device)
    if options.is_quick or device.type == "cuda":
        parts = [measure(options)]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, spawn) as processes:
            parts = list(processes.map(measure, [options] * PROCESSES))
    limits = Limits.of([limits for part in parts for limits in part.limits])
    print(f"{limits}; processes side by side: {len(parts)}.\n")
    samples = {
        shape: gathered(unit for part in parts for unit in part.units[shape])
        for shape in shapes(options.is_quick)
    }
    corpus = options.corpus()
    table = [row(shape, units, limits, corpus) for shape, units in samples.items()]
    print_table([*table, total(samples.values())])


def shapes(is_quick: bool) -> list[Shape]:
    every = itertools.product(WIDTHS, BLOCKS, POSITIONS)
    return [Shape(*each) for each in every if not is_quick or each[:2] == (64, 8)]


def measure(options: BenchmarkOptions) -> Measurements:
    """Measure the limits and all shapes in this process, round by round."""
    device, corpus = best_device(), options.corpus()
    part = SLICE_QUICK if options.is_quick else SLICE_GPU if device.type == "cuda" else SLICE
    measured = Measurements([], {shape: [] for shape in shapes(options.is_quick)})
    keep_between_steps()  # as our workers do; the plain loop has it here too
    with one_thread():
        for _ in range(options.rounds):
            measured.limits.append(measure_limits(device))
            for shape, units in measured.units.items():
                units.append(measure_shape(corpus, shape, part, device))
    return measured


def measure_shape(
    corpus: Corpus, shape: Shape, part: Slice, device: torch.device
) -> dict[str, float]:
    """Return the seconds of a step and of a unit of work, plain and ours, measured in turn.

    Raises:
        ArithmeticError: the plain loop and ours trained on different numbers of tokens.
    """
    config = PlainConfig("attention", *shape, eval_batches=part.batches)
    plain = PlainTrial(config, corpus, device.type)
    whole = Splits.of(corpus, device)
    splits = Splits(whole.train[: part.tokens], whole.validation[: part.tokens])
    ours = OurTrials(trials_of(shape, corpus, part.steps, evaluations=2), corpus, splits)
    plain.step()
    ours.advance()  # a GPU records its steps here
    before = plain.tokens
    plain_steps_s = seconds_of(partial(plain.take, part.steps), device)
    times = ours.advance()
    plain_evaluation_s = seconds_of(plain.evaluate, device)
    tokens = plain.tokens - before
    if tokens != times.steps * BATCH_SIZE * shape.block_size:
        raise ArithmeticError(f"{shape}: {tokens} tokens for the plain loop, {times.steps} steps")
    whole_evaluations = tokens_of(whole) / tokens_of(splits)
    plain_step_s, our_step_s = plain_steps_s / part.steps, times.steps_s / times.steps
    return {
        "tokens": tokens,
        "our step": our_step_s,
        "plain": UNIT_STEPS * plain_step_s + plain_evaluation_s * UNIT_BATCHES / part.batches,
        "ours": UNIT_STEPS * our_step_s + times.evaluation_s * whole_evaluations,
    }


def tokens_of(splits: Splits) -> int:
    return len(splits.train) + len(splits.validation)


def row(
    shape: Shape, samples: Mapping[str, Samples], limits: Limits, corpus: Corpus
) -> dict[str, object]:
    rate = limits.operations_per_s.median
    operations, executed = operations_of(shape, corpus)
    least_bytes = attention_bytes(BATCH_SIZE, shape.block_size, shape.n_embd, corpus.vocab_size)
    step_s = samples["our step"].median
    return {
        **shape._asdict(),
        "tokens, each": int(samples["tokens"].median),
        "plain, s": samples["plain"],
        "ours, s": samples["ours"],
        "plain / ours": samples["plain"].median / samples["ours"].median,
        "our step, ms": 1e3 * step_s,
        "by products, ms": 1e3 * operations / rate,
        "by bytes, ms": 1e3 * least_bytes / limits.bytes_per_s.median,
        "share, definition": operations / step_s / rate,
        "share, executed": executed / step_s / rate,
    }


def total(samples: Iterable[Mapping[str, Samples]]) -> dict[str, object]:
    """Return a row with the sums of the medians of all shapes."""
    units = list(samples)
    plain, ours = (sum(unit[who].median for unit in units) for who in ("plain", "ours"))
    return {"n_embd": "total", "plain, s": plain, "ours, s": ours, "plain / ours": plain / ours}
