"""The count model's fit against loops over lists and over the elements of a tensor."""

from __future__ import annotations

import torch

from analysis.comparison.counting import Counted, time_counting
from benchmarks.measuring import BenchmarkOptions, Samples, best_device, print_section, print_table
from bigram_models import CountBigram
from trainables.training.timing import devices, timed

QUICK_TOKENS = 2_000
FIT = "`CountBigram.fit`"
ABOUT = """Milliseconds: median (least to most) of repeated calls, one after another. All ways gave
the same table; the tokens are there before the clock starts."""


def run(options: BenchmarkOptions) -> None:
    print_section("counting", ABOUT, best_device())
    corpus = options.corpus()
    tokens_N = torch.tensor(corpus.train[: QUICK_TOKENS if options.is_quick else None])
    counts = time_counting(tokens_N, corpus.vocab_size, devices())
    for device in devices():
        model = CountBigram(CountBigram.Config(), corpus.vocab_size, 1, torch.Generator())
        model.to(device)
        there_N = tokens_N.to(device)
        timing = timed(lambda model=model, there_N=there_N: model.fit(there_N), device)  # type: ignore[misc]
        counts.append(Counted(FIT, device.type, len(tokens_N), timing))
    print_table([row(count, counts[-1]) for count in counts])


def row(count: Counted, ours: Counted) -> dict[str, object]:
    return {
        "way": count.way,
        "device": count.device,
        "tokens": count.tokens,
        "ms": Samples(count.timing.seconds).scaled(1e3),
        "ns a token": count.ns_per_token,
        "this / fit": count.ns_per_token / ours.ns_per_token,
    }
