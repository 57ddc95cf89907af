"""Steps of packs by shape and number of members, beside the plain loop; and their kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from benchmarks.measuring import Limits, best_device, print_table
from benchmarks.operations import attention_operations
from benchmarks.ours import BATCH_SIZE, MIXED, OurTrials, Shape, trials_of
from benchmarks.packs import GLANCE, plain_steps
from sweeps.planning.gpu_memory import PROCESS_BYTES, GpuMemory
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits

SHAPES = tuple(Shape(D, T, MIXED) for D in (64, 256) for T in (8, 64))
MEMBERS = (1, 3, 12, 30, 48, 192)
SHOWN = ((64, 8, 3), (64, 8, 192), (256, 64, 30))  # n_embd, block_size and members: with kernels
KERNELS = 12  # of which the longest are shown
STEPS = 1_500  # timed for one member; fewer for more, but at least LEAST
LEAST = 60


class Kernel(NamedTuple):
    """A kernel of a step."""

    name: str
    launches: float  # in a step
    us: float  # all of them, in a step


def print_steps(corpus: Corpus, limits: Limits, is_quick: bool) -> None:
    """Print the times of all shapes, and the longest kernels of some."""
    kernels: dict[tuple[int, int, int], list[Kernel]] = {}
    print_table(rows(corpus, limits, is_quick, kernels))
    for (n_embd, block_size, members), found in kernels.items():
        print(f"The longest kernels of a step: {n_embd}/{block_size}, {members} members.\n")
        print_table(kernel._asdict() for kernel in found[:KERNELS])
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        beside_gib = (total - free - torch.cuda.memory_reserved()) / 2**30
        print(f"Of the GPU's memory {beside_gib:.2f} GiB are context and libraries", end="")
        print(f" (a sweep expects {PROCESS_BYTES / 2**30:.2f} GiB at most).\n")


def rows(
    corpus: Corpus,
    limits: Limits,
    is_quick: bool,
    kernels: dict[tuple[int, int, int], list[Kernel]],
) -> Iterator[dict[str, object]]:
    """Yield the times of each shape and number of members.

    Args:
        corpus: that they train on.
        limits: of the machine.
        is_quick: whether to measure little.
        kernels: the kernels of the shapes in `SHOWN` are added.
    """
    splits, memory = Splits.of(corpus, best_device()), GpuMemory(corpus)
    if is_quick:
        splits = Splits(splits.train[:GLANCE], splits.validation[:GLANCE])
    for shape in SHAPES[:1] if is_quick else SHAPES:
        plain_s = plain_steps(shape._replace(pe_type="rope"), corpus, rounds=3).median
        operations = attention_operations(
            BATCH_SIZE, shape.block_size, shape.n_embd, corpus.vocab_size
        )
        for members in MEMBERS[:2] if is_quick else MEMBERS:
            row: dict[str, object] = {
                "n_embd": shape.n_embd,
                "block_size": shape.block_size,
                "members": members,
            }
            try:
                timed = Steps.measure(shape, members, corpus, splits)
            except torch.OutOfMemoryError:
                yield row | {"ms a step": "out of memory"}
                continue
            finally:
                free_memory()
            if (shape.n_embd, shape.block_size, members) in SHOWN and timed.kernels:
                kernels[shape.n_embd, shape.block_size, members] = timed.kernels
            rate = members * operations / timed.step_s
            yield row | {
                "ms a step": 1e3 * timed.step_s,
                "us a member": 1e6 * timed.step_s / members,
                "plain loop, ms": 1e3 * plain_s,
                "plain / this, a member": plain_s * members / timed.step_s,
                "share of rate": rate / limits.operations_per_s.median,
                "an evaluation, s": timed.evaluation_s,
                "kernels": sum(kernel.launches for kernel in timed.kernels) or None,
                "of kernels, us": sum(kernel.us for kernel in timed.kernels) or None,
                "peak, GiB": timed.peak_gib,
                "expected, GiB": expected_gib(memory, shape, members, corpus),
            }


class Steps(NamedTuple):
    """The measured steps of a pack."""

    step_s: float  # of all members
    evaluation_s: float  # of all members: the validation split, a slice of the training split
    peak_gib: float | None  # that torch's allocator took from the GPU
    kernels: list[Kernel]  # the longest first; empty on a CPU

    @staticmethod
    def measure(shape: Shape, members: int, corpus: Corpus, splits: Splits) -> Steps:
        """Train a pack for some steps.

        Raises:
            OutOfMemoryError: it does not fit on the GPU.
        """
        is_gpu = splits.train.is_cuda
        steps = max(LEAST, STEPS // members) if is_gpu else 2
        ours = OurTrials(trials_of(shape, corpus, steps, 3, members), corpus, splits)
        ours.advance()  # a GPU records its steps here
        times = ours.advance()
        return Steps(
            times.steps_s / times.steps,
            times.evaluation_s,
            torch.cuda.max_memory_reserved() / 2**30 if is_gpu else None,
            kernels_of(ours) if is_gpu else [],
        )


def expected_gib(memory: GpuMemory, shape: Shape, members: int, corpus: Corpus) -> float | None:
    """Return the memory that a sweep expects torch's allocator to take for a pack, at most."""
    member = memory.member(trials_of(shape, corpus, 1, 1)[0])
    return member.reserved_bytes(members) / 2**30 if member else None


def kernels_of(ours: OurTrials) -> list[Kernel]:
    """Return the kernels of one launch of steps, the longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        steps = ours.advance(within_s=0).steps
        torch.cuda.synchronize()
    found = [
        Kernel(event.key[:100], event.count / steps, event.self_device_time_total / steps)
        for event in profile.key_averages()
        if event.device_type.name == "CUDA"
    ]
    return sorted(found, key=lambda kernel: -kernel.us)


def free_memory() -> None:
    """Give the memory of tensors that are gone back to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
