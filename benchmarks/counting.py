"""The count model's fit against loops over lists and over the elements of a tensor."""

from __future__ import annotations

import torch

from analysis.comparison.counting import Counted, counted
from benchmarks.measuring import Asked, Samples, best_device, print_section, print_table
from bigram_models import CountBigram
from trainables.training.timing import devices, timed

QUICK_TOKENS = 2_000
FIT = "`CountBigram.fit`"
ABOUT = """Milliseconds: median (least to most) of repeated calls, one after another. All ways gave
the same table; the tokens are there before the clock starts."""


def run(asked: Asked) -> None:
    print_section("counting", ABOUT, best_device())
    corpus = asked.corpus()
    tokens_N = torch.tensor(corpus.train[: QUICK_TOKENS if asked.is_quick else None])
    found = counted(tokens_N, corpus.vocab_size, devices())
    for device in devices():
        model = CountBigram(CountBigram.Config(), corpus.vocab_size, 1, torch.Generator())
        model.to(device)
        there_N = tokens_N.to(device)
        timing = timed(lambda model=model, there_N=there_N: model.fit(there_N), device)  # type: ignore[misc]
        found.append(Counted(FIT, device.type, len(tokens_N), timing))
    print_table([row(one, found[-1]) for one in found])


def row(one: Counted, ours: Counted) -> dict[str, object]:
    return {
        "way": one.way,
        "device": one.device,
        "tokens": one.tokens,
        "ms": Samples(one.timing.seconds).times(1e3),
        "ns a token": one.ns_per_token,
        "this / fit": one.ns_per_token / ours.ns_per_token,
    }
