"""Trials written plainly from the published protocol, to compare ours with.

    python -m benchmarks.plain_loop WORK.json [--at-once 2]

A batch is stacked from slices, rotary pairs are taken apart and stacked again, attention is
PyTorch's fused kernel, AdamW has its defaults, and a loss is the mean over 200 random batches.

WORK.json has ``corpus``, ``corpora`` (the cache), ``device`` and ``trials`` (each a `PlainConfig`).
Trials run one after another with torch's own number of threads, or several at once in processes of
one thread.

Shapes: B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data.corpus import Corpus, load_corpus

LEARNING_RATE = 1e-2

Report = Mapping[str, float]


@dataclass(frozen=True)
class PlainConfig:
    """A trial; the defaults are the protocol's."""

    variant: str = "attention"  # or bigram, factorized
    n_embd: int = 64
    block_size: int = 8
    pe_type: str = "rope"
    seed: int = 1337
    batch_size: int = 64
    max_steps: int = 5_000
    eval_every: int = 500
    eval_batches: int = 200  # for each split


class PlainAttention(nn.Module):
    """x = position(E[id]); logits = Linear(attention(x, x, x))."""

    def __init__(self, vocab_size: int, n_embd: int, block_size: int, pe_type: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.head = nn.Linear(n_embd, vocab_size)
        self.pe_type = pe_type
        position = torch.arange(block_size).float()[:, None]
        angle = position / 10000 ** (torch.arange(0, n_embd, 2).float() / n_embd)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        table = 0.02 * torch.randn(block_size, n_embd)
        if pe_type == "sinpe":
            table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
        self.register_buffer("table", table)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        if self.pe_type == "rope":
            even, odd = x[..., 0::2], x[..., 1::2]
            x = torch.stack(
                [even * self.cos - odd * self.sin, even * self.sin + odd * self.cos], dim=-1
            ).flatten(-2)
        else:
            x = x + self.table
        logits: Tensor = self.head(F.scaled_dot_product_attention(x, x, x, is_causal=True))
        return logits


def plain_model(config: PlainConfig, vocab_size: int) -> nn.Module:
    if config.variant == "bigram":
        return nn.Embedding(vocab_size, vocab_size)
    if config.variant == "factorized":
        table = nn.Embedding(vocab_size, config.n_embd)
        return nn.Sequential(table, nn.Linear(config.n_embd, vocab_size))
    return PlainAttention(vocab_size, config.n_embd, config.block_size, config.pe_type)


class PlainTrial:
    """Steps and evaluations of one configuration; the text stays on the CPU."""

    def __init__(self, config: PlainConfig, corpus: Corpus, device: str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.splits = [torch.tensor(text).long() for text in (corpus.train, corpus.validation)]
        self.model = plain_model(config, corpus.vocab_size).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        self.tokens = 0  # trained on so far

    def batch(self, split: Tensor) -> tuple[Tensor, Tensor]:
        T = self.config.block_size
        starts = torch.randint(len(split) - T, (self.config.batch_size,))
        inputs = torch.stack([split[start : start + T] for start in starts])
        targets = torch.stack([split[start + 1 : start + T + 1] for start in starts])
        return inputs.to(self.device), targets.to(self.device)

    def loss(self, split: Tensor) -> Tensor:
        inputs, targets = self.batch(split)
        logits = self.model(inputs)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def step(self) -> None:
        loss = self.loss(self.splits[0])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.tokens += self.config.batch_size * self.config.block_size

    def take(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    @torch.no_grad()
    def evaluate(self) -> list[float]:
        """Return the training and the validation loss in nats per character."""
        mean: Callable[[Tensor], Tensor] = lambda split: torch.stack(  # noqa: E731
            [self.loss(split) for _ in range(self.config.eval_batches)]
        ).mean()
        return [float(mean(split)) for split in self.splits]

    def train(self) -> Iterator[Report]:
        """Train to the end, and yield a report of each evaluation."""
        started_s, config = time.time(), self.config
        for step in range(1, config.max_steps + 1):
            self.step()
            if step % config.eval_every == 0 or step == config.max_steps:
                train_loss, val_loss = self.evaluate()
                yield {
                    "step": step,
                    "train_loss": train_loss,
                    "val_loss": val_loss,
                    "tokens": self.tokens,
                    "started_s": started_s,
                    "ended_s": time.time(),
                }


def read_work(path: Path) -> tuple[Corpus, str, list[PlainConfig]]:
    """Return the corpus, the device and the trials."""
    work = json.loads(path.read_text())
    corpus = load_corpus(work["corpus"], Path(work["corpora"]))
    return corpus, work["device"], [PlainConfig(**settings) for settings in work["trials"]]


def train_to_end(corpus: Corpus, device: str, config: PlainConfig) -> Report:
    """Train a trial, and return its last report."""
    *_, last = PlainTrial(config, corpus, device).train()
    return last


def summary(reports: Iterable[Report], packs: Sequence[Mapping[str, object]] = ()) -> str:
    """Return the last reports of all trials, and the times of packs, as one line of JSON."""
    last = list(reports)
    return json.dumps(
        {
            "trials": len(last),
            "tokens": sum(int(report["tokens"]) for report in last),
            "val_loss": statistics.fmean(report["val_loss"] for report in last),
            "started_s": min(
                report["started_s"] for report in last
            ),  # of the first trial, time.time()
            "ended_s": max(report["ended_s"] for report in last),  # of the last one
            "packs": packs,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    corpus, device, trials = read_work(given.work)
    train = partial(train_to_end, corpus, device)
    if given.at_once == 1:
        print(summary(map(train, trials)))
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.at_once, spawn, torch.set_num_threads, (1,)) as processes:
        print(summary(processes.map(train, trials)))


if __name__ == "__main__":
    main()
