"""The texts of 30 finished trials, drawn together and one by one, with one thread.

On a GPU the models are there; their texts are drawn where `quicker_device` says, and there alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.measuring import (
    BenchmarkOptions,
    Samples,
    best_device,
    print_section,
    print_table,
)
from benchmarks.ours import POSITIONS
from bigram_models import VARIANTS, LanguageModel, generation
from trainables.persistence.artifacts import SAMPLE_CHARACTERS, first_samples
from trainables.training.timing import one_thread

MEMBERS = 30
TABLES: tuple[tuple[str, dict[str, Any]], ...] = (("bigram", {}), ("factorized", {"n_embd": 384}))
WIDTHS, BLOCK_SIZES = (64, 128, 256), (8, 16, 32, 64)
ABOUT = f"""Seconds in which {MEMBERS} untrained models write {SAMPLE_CHARACTERS} characters each,
those of attention with the three pe_types in turn: median (least to most) over rounds. Processor
time is that of this process while they are drawn together."""


def run(options: BenchmarkOptions) -> None:
    device, vocabulary = best_device(), options.corpus().vocabulary
    print_section("samples", ABOUT, device)
    attention = [("attention", {"n_embd": D}, T) for D, T in product(WIDTHS, BLOCK_SIZES)]
    cases = [*((variant, settings, 8) for variant, settings in TABLES), *attention]
    with one_thread():
        print_table(rows(cases[1:3] if options.is_quick else cases, vocabulary, options.rounds))


def rows(
    cases: Sequence[tuple[str, dict[str, Any], int]], vocabulary: str, rounds: int
) -> Iterator[dict[str, object]]:
    """Yield the times of each case: a variant, its settings, and a block size."""
    device = best_device()
    for variant, settings, block_size in cases:
        models = [
            model_of(variant, settings, len(vocabulary), block_size, number).to(device)
            for number in range(MEMBERS)
        ]
        together = [seconds(models, vocabulary) for _ in range(rounds + 1)][1:]
        row: dict[str, object] = {
            "variant": variant,
            "n_embd": settings.get("n_embd", ""),
            "block_size": block_size,
            "together, s": Samples([wall for wall, _ in together]),
            "processor time, s": Samples([cpu for _, cpu in together]),
            "one by one, s": sum(seconds([model], vocabulary)[0] for model in models),
            "drawn on": generation.quicker_device(models).type,
        }
        if device.type == "cuda":
            with patch.object(generation, "CPU_BYTES", 0):
                on_gpu = [seconds(models, vocabulary)[0] for _ in range(rounds + 1)][1:]
            row["together on the GPU, s"] = Samples(on_gpu)
        yield row


def model_of(
    variant: str, settings: dict[str, Any], vocab_size: int, block_size: int, number: int
) -> LanguageModel:
    """Return the untrained model of a trial, with the encoding of its number if it has one."""
    make: Any = VARIANTS[variant]
    own = {"pe_type": POSITIONS[number % len(POSITIONS)]} if variant == "attention" else {}
    chance = torch.Generator().manual_seed(number)
    model: LanguageModel = make(make.Config(**settings, **own), vocab_size, block_size, chance)
    return model


def seconds(models: Sequence[LanguageModel], vocabulary: str) -> tuple[float, float]:
    """Return the time and the processor time in which these models write their samples."""
    wall, cpu = time.perf_counter(), time.process_time()
    first_samples(models, vocabulary, range(len(models)))  # ends on the CPU
    return time.perf_counter() - wall, time.process_time() - cpu
