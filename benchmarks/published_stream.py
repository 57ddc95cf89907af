"""The published cells with the study's own random numbers, by our code.

    python -m benchmarks.published_stream [--published FILE] [--cells rope/64/16 bigram ...]

The study drew everything from one stream, seeded with 1337: initial values, then training batches
and the batches of its sampled evaluations in turn (before steps 0, 500, ..., 4500 and the last).
A sweep does not: its evaluations have a stream of their own, so that how often one looks changes
nothing, and a final loss at a constant learning rate of 1e-2 depends on the last batches. Here our
models, sampler, optimizer and losses follow the study's order of draws, so that little but
arithmetic remains between the two tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from trainables.batches import WindowSampler
from trainables.config import TrialConfig
from trainables.corpus import Corpus, load_corpus
from trainables.evaluation import sampled_loss
from trainables.training import Splits, initial_state, take_steps


@dataclass(frozen=True)
class Cell:
    """A row of the published table; losses in nats, nan where none was published."""

    variant: str
    pe_type: str | None
    n_embd: int | None
    block_size: int
    train_loss: float
    val_loss: float

    @property
    def name(self) -> str:
        parts = (self.pe_type, self.n_embd, self.block_size)
        return self.variant if self.pe_type is None else "/".join(map(str, parts))

    def trial(self, corpus: Corpus) -> TrialConfig:
        settings = {"pe_type": self.pe_type, "n_embd": self.n_embd}
        given = {name: value for name, value in settings.items() if value is not None}
        return TrialConfig.from_dict(
            {
                "model": {"variant": self.variant, **given},
                "training": {"block_size": self.block_size},
                "seed": 1337,
                "corpus": corpus.name,
                "corpus_digest": corpus.digest,
            }
        )


def read_published(path: Path) -> list[Cell]:
    """The published table: variant, pe_type, n_embd, block_size (8 where empty), losses."""
    table = pd.read_csv(path).astype({"n_embd": "Int64", "block_size": "Int64"})
    return [
        Cell(
            variant=row.variant,
            pe_type=None if pd.isna(row.pe_type) else row.pe_type,
            n_embd=None if pd.isna(row.n_embd) else int(row.n_embd),
            block_size=8 if pd.isna(row.block_size) else int(row.block_size),
            train_loss=row.train_loss,
            val_loss=row.val_loss,
        )
        for row in table.itertuples()
    ]


def train_as_published(trial: TrialConfig, corpus: Corpus) -> tuple[float, float]:
    """Train with one stream for everything; return train and validation loss in nats."""
    torch.set_num_threads(1)
    training = trial.training
    state = initial_state(trial, corpus.vocab_size)
    chance = torch.Generator().manual_seed(trial.seed)
    trial.model.build(corpus.vocab_size, training.block_size, chance)  # moves the stream past it
    state.batches = chance
    splits = Splits.of(corpus, torch.device("cpu"))
    samplers = [
        WindowSampler(split, training.batch_size, training.block_size)
        for split in (splits.train, splits.validation)
    ]
    losses = (float("nan"), float("nan"))
    for step in range(training.max_steps):
        if step % training.eval_every == 0 or step == training.max_steps - 1:
            train_nats, val_nats = (
                sampled_loss(state.model, sampler, training.eval_batches, chance)
                for sampler in samplers
            )
            losses = (train_nats, val_nats)
        take_steps(state, samplers[0], 1)
    return losses


def measure(work: tuple[Cell, Path]) -> tuple[Cell, float, float]:
    """One cell, in a process of its own."""
    cell, corpora = work
    corpus = load_corpus("tinyshakespeare", corpora)
    return (cell, *train_as_published(cell.trial(corpus), corpus))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument(
        "--cells", nargs="*", help="names such as rope/64/16 or bigram; all of them"
    )
    parser.add_argument(
        "--corpora", type=Path, default=os.environ.get("SWEEPS_CORPORA", "state/corpora")
    )
    arguments = parser.parse_args()
    cells = [c for c in read_published(arguments.published)
             if not arguments.cells or c.name in arguments.cells]  # fmt: skip
    differences = []
    print("cell              train    published     val     published  difference")
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        work = [(cell, Path(arguments.corpora)) for cell in cells]
        for cell, train_nats, val_nats in pool.imap(measure, work, chunksize=1):
            differences.append(abs(val_nats - cell.val_loss))
            print(
                f"{cell.name:<14} {train_nats:>9.5f} {cell.train_loss:>9.5f} {val_nats:>11.5f}"
                f" {cell.val_loss:>9.5f} {val_nats - cell.val_loss:>+10.5f}",
                flush=True,
            )
    print(f"validation: at most {max(differences):.5f}, mean {statistics.mean(differences):.5f}")


if __name__ == "__main__":
    main()
