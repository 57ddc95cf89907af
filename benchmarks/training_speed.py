"""Ours against the plain loop, on the 12 shapes of the published sweep.

    python -m benchmarks.training_speed [--rounds 5]

Two processes run side by side, as two trials do on two cores, each with one thread. In each round
every case takes some steps and a slice of an evaluation, plain and ours in turn; a case's time is
the median over rounds and both processes. The protocol evaluates every 500 steps, so a unit of work
is 500 steps and one evaluation of both splits: sampled (200 batches a split) for the plain loop as
the study did it, exact (every token of both splits) for ours.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.plain_loop import EVALUATION_BATCHES, PlainTrial
from trainables.batches import WindowSampler
from trainables.config import TrialConfig
from trainables.corpus import Corpus, load_corpus
from trainables.evaluation import exact_loss
from trainables.training import Splits, initial_state, take_steps

WIDTHS, BLOCKS, POSITIONS = (64, 128, 256), (8, 16, 32, 64), ("randn", "sinpe", "rope")
STEPS_PER_EVALUATION = 500
SLICE_STEPS = 10
SLICE_BATCHES = 4  # of the plain loop's 200 a split
SLICE_TOKENS = 65_537  # of ours: a part of the validation split
Case = tuple[int, int, str]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_case(corpus: Corpus, case: Case) -> dict[str, float]:
    """Seconds of a step and of an evaluation, plain and ours, measured in turn."""
    n_embd, block_size, pe_type = case
    splits = Splits.of(corpus, torch.device("cpu"))
    plain = PlainTrial(splits.train.long(), splits.validation.long(), corpus.vocab_size, *case)
    trial = TrialConfig.from_dict(
        {
            "model": {"variant": "attention", "pe_type": pe_type, "n_embd": n_embd},
            "training": {"block_size": block_size},
            "seed": 1337,
            "corpus": corpus.name,
            "corpus_digest": corpus.digest,
        }
    )
    state = initial_state(trial, corpus.vocab_size)
    sampler = WindowSampler(splits.train, trial.training.batch_size, block_size)
    part = splits.validation[:SLICE_TOKENS]
    tokens = len(splits.train) + len(splits.validation)
    plain.step()
    take_steps(state, sampler, 1)
    return {
        "plain step": timed(lambda: [plain.step() for _ in range(SLICE_STEPS)]) / SLICE_STEPS,
        "our step": timed(lambda: take_steps(state, sampler, SLICE_STEPS)) / SLICE_STEPS,
        "plain evaluation": timed(lambda: plain.evaluate(SLICE_BATCHES))
        * EVALUATION_BATCHES
        / SLICE_BATCHES,
        "our evaluation": timed(lambda: exact_loss(state.model, part, block_size))
        * tokens
        / (len(part) - 1),
    }


def measure(rounds: int, corpora: Path, answers: multiprocessing.Queue[object]) -> None:
    """One of the two processes: all cases, round by round."""
    torch.set_num_threads(1)
    corpus = load_corpus("tinyshakespeare", corpora)
    for _, case in itertools.product(range(rounds), itertools.product(WIDTHS, BLOCKS, POSITIONS)):
        answers.put((case, measure_case(corpus, case)))
    answers.put(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--corpora", type=Path, default=os.environ.get("SWEEPS_CORPORA", "state/corpora")
    )
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[object] = context.Queue()
    work = (arguments.rounds, Path(arguments.corpora), answers)
    processes = [context.Process(target=measure, args=work) for _ in range(2)]
    for process in processes:
        process.start()
    samples: dict[tuple[Case, str], list[float]] = {}
    running = len(processes)
    while running:
        answer = answers.get(timeout=600)
        if answer is None:
            running -= 1
            continue
        case, times = answer
        for name, seconds in times.items():
            samples.setdefault((case, name), []).append(seconds)
    for process in processes:
        process.join()
    report({key: statistics.median(values) for key, values in samples.items()}, arguments.rounds)


def report(medians: dict[tuple[Case, str], float], rounds: int) -> None:
    """Print a row for each shape (all three pe_types added) and the total."""

    def unit(case: Case, who: str) -> float:
        steps = STEPS_PER_EVALUATION * medians[case, f"{who} step"]
        return steps + medians[case, f"{who} evaluation"]

    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, 2 processes,")
    print(f"median of {rounds} rounds x 2 processes; seconds of 500 steps and one evaluation")
    print(f"{'n_embd':>6} {'block':>5} {'plain':>8} {'ours':>8} {'ratio':>6}   ratio by pe_type")
    plain_s = our_s = 0.0
    for shape in itertools.product(WIDTHS, BLOCKS):
        cases = [(*shape, pe_type) for pe_type in POSITIONS]
        plain, ours = (sum(unit(case, who) for case in cases) for who in ("plain", "our"))
        each = " ".join(f"{c[2]} {unit(c, 'plain') / unit(c, 'our'):.2f}" for c in cases)
        print(
            f"{shape[0]:>6} {shape[1]:>5} {plain:>8.2f} {ours:>8.2f} {plain / ours:>6.2f}   {each}"
        )
        plain_s, our_s = plain_s + plain, our_s + ours
    print(f"{'total':>12} {plain_s:>8.2f} {our_s:>8.2f} {plain_s / our_s:>6.2f}")


if __name__ == "__main__":
    main()
