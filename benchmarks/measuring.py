"""What the sections share: what is asked for, repeated measurements, the machine, tables."""

from __future__ import annotations

import datetime
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables.data.corpus import Corpus, load_corpus
from trainables.training.timing import hardware, load, timed

SIDES, SIDES_GPU = (256, 512, 1_024), (2_048, 4_096, 8_192)  # of the square matrices
COPIED = 1 << 26  # float32, 256 MiB: more than the caches hold


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; each section takes what concerns it."""

    rounds: int
    is_quick: bool
    is_full: bool
    max_steps: int  # of each trial of the published sweep
    ways: tuple[str, ...]  # of running the published sweep, besides ours
    seeds: tuple[int, ...]  # numbers of seeds of the published sweep; empty for the section's own
    trials: tuple[int, ...]  # numbers of trivial trials; empty for the section's own
    sweeps: int | None  # synthetic ones for each rate of verdicts; None for the section's own
    is_search: bool  # whether the trivial trials are suggested by a search
    corpora: Path  # the cache of downloaded texts

    @property
    def corpus_name(self) -> str:
        return "embedded" if self.is_quick else "tinyshakespeare"

    def corpus(self) -> Corpus:
        return load_corpus(self.corpus_name, self.corpora)


@dataclass(frozen=True)
class Samples:
    """A quantity measured several times; shown as the median (least to most)."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def times(self, factor: float) -> Samples:
        return Samples([factor * value for value in self.values])

    def __str__(self) -> str:
        if len(self.values) == 1:
            return digits(self.median)
        low, high = digits(min(self.values)), digits(max(self.values))
        return f"{digits(self.median)} ({low} to {high})"


@dataclass(frozen=True)
class Limits:
    """What this machine can do at best, as measured."""

    operations_per_s: Samples  # of float32 matrix products, a product and a sum counted as two
    bytes_per_s: Samples  # read and written by a copy

    @staticmethod
    def of(found: Sequence[Limits]) -> Limits:
        """Those of all rounds as one."""
        return Limits(
            Samples([rate for one in found for rate in one.operations_per_s.values]),
            Samples([rate for one in found for rate in one.bytes_per_s.values]),
        )

    def __str__(self) -> str:
        products, copies = self.operations_per_s.times(1e-9), self.bytes_per_s.times(1e-9)
        return f"Matrix products: {products} GFLOP/s; copies: {copies} GB/s"


def measure_limits(device: torch.device) -> Limits:
    """With the threads that torch has now, at the best of a few square shapes."""
    rates = []
    for side in SIDES_GPU if device.type == "cuda" else SIDES:
        a, b, c = (torch.rand(side, side, device=device) for _ in range(3))
        product = timed(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), device)  # type: ignore[misc]
        rates.append(2 * side**3 / product.median_s)
    source = torch.zeros(COPIED, device=device)
    target = torch.empty_like(source).zero_()
    copy = timed(lambda: target.copy_(source), device)
    return Limits(Samples([max(rates)]), Samples([2 * source.nbytes / copy.median_s]))


def best_device() -> torch.device:
    """Where `steps`, `packs` and `sweep` train: on a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, with all that it started on the device."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def gpu_busy() -> float | None:
    """Percent of the moments before in which the GPU was, with all that ran on it, if known."""
    try:
        return float(torch.cuda.utilization())
    except Exception:  # there is no GPU, nvidia-ml-py is missing, or the driver does not tell
        return None


def gathered(found: Iterable[Mapping[str, float]]) -> dict[str, Samples]:
    """The same quantities of several rounds, by name."""
    rounds = list(found)
    return {name: Samples([one[name] for one in rounds]) for name in rounds[0]}


def print_section(name: str, about: str, device: torch.device) -> None:
    """The head of a section: what it shows, on which machine, by which command."""
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    print(f"\n## {name}\n\n    {command}\n")
    print(f"{datetime.date.today()}, {hardware(torch.device('cpu'))}", end="")
    print(f", {hardware(device)}" if device.type == "cuda" else "", end="")
    print(f", Python {platform.python_version()}, torch {torch.__version__}; load: {load()}.")
    print(f"{about}\n", flush=True)


def print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """In Markdown, each row as soon as it is there; the columns are those of the first."""
    columns: list[str] = []
    for row in rows:
        if not columns:
            columns = list(row)
            print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        print(f"| {' | '.join(_cell(row.get(column, '')) for column in columns)} |", flush=True)
    print()


def digits(number: float) -> str:
    """Three of them, or all before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _cell(value: object) -> str:
    return digits(value) if isinstance(value, float) else "" if value is None else str(value)
