"""What the sections share: options, repeated measurements, the machine's limits, tables."""

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
from trainables.training.timing import device_name, load_in_words, timed

SIDES, SIDES_GPU = (256, 512, 1_024), (2_048, 4_096, 8_192)  # of the square matrices
COPIED = 1 << 26  # float32 values, 256 MiB: more than the caches hold


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of the command line; each section reads those that it needs."""

    rounds: int
    is_quick: bool
    is_full: bool
    max_steps: int  # of each trial of the published sweep
    ways: tuple[str, ...]  # other ways of running the published sweep
    seeds: tuple[int, ...]  # numbers of seeds of the published sweep; empty for the default
    trials: tuple[int, ...]  # numbers of trivial trials; empty for the default
    sweeps: int | None  # synthetic sweeps for each rate of verdicts; None for the default
    is_search: bool  # a search suggests the trivial trials
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

    def scaled(self, factor: float) -> Samples:
        return Samples([factor * value for value in self.values])

    def __str__(self) -> str:
        if len(self.values) == 1:
            return digits(self.median)
        low, high = digits(min(self.values)), digits(max(self.values))
        return f"{digits(self.median)} ({low} to {high})"


@dataclass(frozen=True)
class Limits:
    """The measured limits of this machine."""

    operations_per_s: Samples  # of float32 matrix products, a product and a sum counted as two
    bytes_per_s: Samples  # read and written by a copy

    @staticmethod
    def of(rounds: Sequence[Limits]) -> Limits:
        """Return the limits with the samples of all rounds."""
        return Limits(
            Samples([rate for limits in rounds for rate in limits.operations_per_s.values]),
            Samples([rate for limits in rounds for rate in limits.bytes_per_s.values]),
        )

    def __str__(self) -> str:
        products, copies = self.operations_per_s.scaled(1e-9), self.bytes_per_s.scaled(1e-9)
        return f"Matrix products: {products} GFLOP/s; copies: {copies} GB/s"


def measure_limits(device: torch.device) -> Limits:
    """Measure the limits with torch's current threads, at the best of a few square shapes."""
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
    """Return the device on which `steps`, `packs` and `sweep` train: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, including all that it starts on the device."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def gpu_busy() -> float | None:
    """Return how busy the GPU was lately, in percent, all processes counted; None if unknown."""
    try:
        return float(torch.cuda.utilization())
    except Exception:  # there is no GPU, nvidia-ml-py is missing, or the driver has no figure
        return None


def gathered(rounds: Iterable[Mapping[str, float]]) -> dict[str, Samples]:
    """Return the samples of each quantity over several rounds, by name."""
    values = list(rounds)
    return {name: Samples([by_name[name] for by_name in values]) for name in values[0]}


def print_section(name: str, about: str, device: torch.device) -> None:
    """Print the head of a section: its command, the machine and what it shows."""
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    print(f"\n## {name}\n\n    {command}\n")
    print(f"{datetime.date.today()}, {device_name(torch.device('cpu'))}", end="")
    print(f", {device_name(device)}" if device.type == "cuda" else "", end="")
    print(
        f", Python {platform.python_version()}, torch {torch.__version__}; load: {load_in_words()}."
    )
    print(f"{about}\n", flush=True)


def print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """Print a Markdown table, each row as soon as it exists, with the columns of the first."""
    columns: list[str] = []
    for row in rows:
        if not columns:
            columns = list(row)
            print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        print(f"| {' | '.join(_cell(row.get(column, '')) for column in columns)} |", flush=True)
    print()


def digits(number: float) -> str:
    """Return a number with three significant digits, or with all before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _cell(value: object) -> str:
    return digits(value) if isinstance(value, float) else "" if value is None else str(value)
