"""Packs of 1 to 256 trials of one shape: the time of a step for each member.

Beside them the plain loop and a trial of ours alone, with one thread on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.measuring import (
    BenchmarkOptions,
    Limits,
    Samples,
    best_device,
    gpu_busy,
    measure_limits,
    print_section,
    print_table,
    seconds_of,
)
from benchmarks.operations import attention_operations
from benchmarks.ours import BATCH_SIZE, OurTrials, Shape, trials_of
from benchmarks.plain_loop import PlainConfig, PlainTrial
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits
from trainables.training.timing import one_thread

SHAPES = (Shape(64, 8, "rope"), Shape(64, 64, "rope"))
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GLANCE = 4_096  # tokens of each split: evaluations are not measured
STEPS, STEPS_GPU = 20, 1_000  # of a round at most; a GPU reports its use by the second
ROUND_S = 1.0  # on a CPU: a large pack takes fewer steps
ABOUT = """Milliseconds of a step, for each member: median (least to most) over rounds. The share is
of the measured rate of matrix products, by the operations of the definition."""


def run(options: BenchmarkOptions) -> None:
    device, corpus = best_device(), options.corpus()
    print_section("packs", ABOUT, device)
    sizes = SIZES[:2] if options.is_quick else SIZES
    with one_thread():
        limits = measure_limits(device)
        print(f"{limits}.\n")
        for shape in SHAPES[:1] if options.is_quick else SHAPES:
            print_table(rows(shape, sizes, corpus, options.rounds, limits))


def rows(
    shape: Shape, sizes: tuple[int, ...], corpus: Corpus, rounds: int, limits: Limits
) -> Iterator[dict[str, object]]:
    plain = plain_steps(shape, corpus, rounds)
    operations = attention_operations(BATCH_SIZE, shape.block_size, shape.n_embd, corpus.vocab_size)
    for members in (0, *sizes):
        step_s = pack_steps(shape, members, corpus, rounds) if members else plain
        yield {
            **shape._asdict(),
            "members": members or "plain loop",
            "ms a step and member": step_s.scaled(1e3),
            "plain / this": plain.median / step_s.median,
            "share": operations / step_s.median / limits.operations_per_s.median,
            "GPU busy, %": gpu_busy(),
        }


def plain_steps(shape: Shape, corpus: Corpus, rounds: int) -> Samples:
    """Return the seconds of a step of the plain loop."""
    device = best_device()
    plain = PlainTrial(PlainConfig("attention", *shape), corpus, device.type)
    plain.step()
    take = partial(plain.take, STEPS)
    return Samples([seconds_of(take, device) / STEPS for _ in range(rounds)])


def pack_steps(shape: Shape, members: int, corpus: Corpus, rounds: int) -> Samples:
    """Return the seconds of a step of a pack, for each member."""
    device = best_device()
    steps = STEPS_GPU if device.type == "cuda" else STEPS
    whole = Splits.of(corpus, device)
    splits = Splits(whole.train[:GLANCE], whole.validation[:GLANCE])
    ours = OurTrials(trials_of(shape, corpus, steps, rounds + 1, members), corpus, splits)
    ours.advance(ROUND_S)  # a GPU records its steps here
    times = [ours.advance(ROUND_S) for _ in range(rounds)]
    return Samples([call.steps_s / call.steps / members for call in times])
