"""Cost of a trained model: numbers, bytes, and times on each device. V is the vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigram_models import CountBigram, FittedModel, LanguageModel
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler, stream
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits, TrainingState, initial_state, take_steps
from trainables.training.timing import Timing, timed

BATCHES = ((32, 8), (1_024, 64))  # sequences x tokens of a forward pass: as trained, and larger
UPDATES = 20  # that are timed together


@dataclass(frozen=True)
class ModelCost:
    """Memory and time of one model.

    ``kept_bytes`` is what the model is, and ``learning_bytes`` what ``holds`` names: it must be in
    memory to learn it, besides the text. ``forward`` is by device and batch; ``learning`` by
    device, of one optimizer update or of the fit as a whole.
    """

    learnt: str  # how many numbers the text decides
    kept_bytes: int
    learning_bytes: int
    holds: str
    forward: Mapping[tuple[str, tuple[int, int]], Timing]
    learning: Mapping[str, Timing]


def cost_of(
    model: LanguageModel, trial: TrialConfig, corpus: Corpus, devices: Sequence[torch.device]
) -> ModelCost:
    """Measure a trained model, and its training from the start."""
    forward, learning = {}, {}
    sizes: dict[str, int] = {}
    for device in devices:
        there = copy.deepcopy(model).to(device)
        for batch in BATCHES:
            forward[device.type, batch] = _forward(there, corpus, batch, trial.seed, device)
        splits = Splits.of(corpus, device)
        state = initial_state(trial, corpus.vocab_size, device)
        learning[device.type] = _learning(state, trial, splits.train, device)
        sizes = sizes or _learning_bytes(state, splits.train)
    kept_bytes = _bytes(model.state_dict().values())
    return ModelCost(
        _learnt(model), kept_bytes, sum(sizes.values()), ", ".join(sizes), forward, learning
    )


@torch.inference_mode()
def table_of(model: LanguageModel, vocab_size: int) -> Tensor:
    """Return the logits (V, V) float64 of a model that sees one token: a row for each token."""
    logits_V1V: Tensor = model(torch.arange(vocab_size)[:, None])
    return logits_V1V[:, 0].double()


def _forward(
    model: LanguageModel, corpus: Corpus, batch: tuple[int, int], seed: int, device: torch.device
) -> Timing:
    """Time a forward pass over tokens of the validation split, the same for every model."""
    start = torch.randint(len(corpus.validation), batch, generator=stream(seed, f"forward/{batch}"))
    ids_BT = torch.from_numpy(corpus.validation.copy()).long()[start].to(device)
    with torch.inference_mode():
        return timed(lambda: model(ids_BT), device)


def _learning(
    state: TrainingState, trial: TrialConfig, tokens_N: Tensor, device: torch.device
) -> Timing:
    """Time a fit, or one optimizer update, out of several in a row."""
    model = state.model
    if isinstance(model, FittedModel):
        return timed(lambda: model.fit(tokens_N), device)
    sampler = WindowSampler(tokens_N, trial.training.batch_size, trial.training.block_size)
    timing = timed(lambda: take_steps(state, sampler, trial.seed, UPDATES), device)
    return Timing(tuple(seconds / UPDATES for seconds in timing.seconds))


def _learning_bytes(state: TrainingState, tokens_N: Tensor) -> dict[str, int]:
    """Return how many bytes a model that was just trained had in memory, by name."""
    if state.optimizer is None:
        return {
            "its tables": _bytes(state.model.state_dict().values()),
            "a code for each pair of the text": 8 * (len(tokens_N) - 1),
            "a histogram of V x V": 8 * state.model.vocab_size**2,
        }
    weights = list(state.model.parameters())
    moments = [value for each in state.optimizer.state.values() for value in each.values()]
    return {
        "weights": _bytes(weights),
        "gradients": _bytes(each.grad for each in weights if each.grad is not None),
        "AdamW's moments": _bytes(value for value in moments if isinstance(value, Tensor)),
    }


def _learnt(model: LanguageModel) -> str:
    if isinstance(model, CountBigram):
        return f"{model.vocab_size**2:,} counts, of which {len(model.count_P):,} are not zero"
    return f"{sum(each.numel() for each in model.parameters()):,} weights"


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)
