"""Measures how many trials of a shape train fastest in one pack. Knows no Ray."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch

from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.gpu_memory import glanced, is_out_of_memory, shortened
from trainables.training.loop import Splits, initial_state
from trainables.training.stack import Member, NotStackableError, Stack, stack_shape

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEPS = 50  # that are timed, after as many to warm up
GAIN = 0.9  # a larger pack must take less than this share of the time of a trial
MEASURING_S = 60.0  # after which further shapes get the smallest size found

logger = logging.getLogger(__name__)


def best_sizes(
    trials: Sequence[TrialConfig],
    most: int,
    corpus: Corpus,
    device: torch.device,
    room_bytes: float = math.inf,
) -> dict[Hashable, int]:
    """Measure the size of packs in which a trial takes the least time, for each shape.

    Args:
        trials: one or more of each shape.
        most: trials of a pack.
        corpus: what they train on.
        device: where they train.
        room_bytes: GPU memory of one pack; a single trial is assumed to fit.

    Returns:
        The number of trials of a pack, by `stack_shape`.
    """
    tokens = glanced(max(trial.training.block_size for trial in trials))
    whole = Splits.of(corpus, device)
    splits = Splits(whole.train[:tokens], whole.validation[:tokens])
    shapes: dict[Hashable, list[TrialConfig]] = {}
    for trial in trials:
        if (shape := stack_shape(trial)) is not None:
            shapes.setdefault(shape, []).append(trial)
    sizes: dict[Hashable, int] = {}
    deadline_s = time.monotonic() + MEASURING_S
    for shape, alike in shapes.items():
        if sizes and time.monotonic() > deadline_s:
            sizes[shape] = min(sizes.values())
        else:
            sizes[shape] = _best_size(alike, most, corpus.vocab_size, splits, room_bytes)
    return sizes


def _best_size(
    trials: Sequence[TrialConfig], most: int, vocab_size: int, splits: Splits, room_bytes: float
) -> int:
    best, best_s = 1, math.inf
    for size in sorted({min(size, most) for size in SIZES}):
        members = [replace(trials[i % len(trials)], seed=i) for i in range(size)]
        try:
            seconds, taken_bytes = _measured(members, vocab_size, splits)
        except NotStackableError as error:
            logger.info("%s is trained alone: %s", trials[0].model.variant, error)
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if size > 1 and (taken_bytes > room_bytes or seconds / size > GAIN * best_s):
            break
        best, best_s = size, seconds / size
    return best


def _measured(trials: Sequence[TrialConfig], vocab_size: int, splits: Splits) -> tuple[float, int]:
    """Return the seconds of `STEPS` steps of a pack, and its highest memory on a GPU in bytes."""
    device = splits.train.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    members = []
    for trial in trials:
        training = shortened(
            trial.training, max_steps=2 * STEPS, eval_every=STEPS, evaluation="exact"
        )
        brief = replace(trial, training=training)
        members.append(Member(brief, initial_state(brief, vocab_size, device)))
    stack = Stack(members, splits)
    stack.advance()  # to warm up
    before_s = sum(member.state.training_s for member in members)
    if len(stack.members) < len(members):
        return math.inf, 0  # some diverged: the pack cannot be timed
    stack.advance()
    seconds = sum(member.state.training_s for member in members) - before_s
    return seconds, torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
