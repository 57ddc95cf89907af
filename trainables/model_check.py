"""Checks users' own models before a sweep trains them, in some of its configurations.

Shapes: B batch, T time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from bigram_models import VARIANTS, FittedModel, LanguageModel
from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.errors import UserError, brief
from trainables.model_contract import Candidate, have_equal_values
from trainables.own_modules import silenced
from trainables.persistence.artifacts import SAMPLE_CHARACTERS
from trainables.variants import faults_of

ROWS = 2  # of a batch of tokens
SHORT = 16  # tokens: up to this length all are tried
CHECKING_S = 2.0  # seconds for the configurations of a variant; at least one is checked
FITTED_ON = 64  # tokens
GPU_WORDS = ("cuda", "nvidia", "gpu")  # in an error of a model that needs one
MEMORY_WORDS = ("allocate memory", "out of memory")


def check_models(
    trials: Iterable[TrialConfig],
    vocab_size: int,
    split_sizes: Sequence[int] = (),
    fits: Callable[[TrialConfig], bool] = lambda trial: True,
    may_fail: bool = False,
) -> list[str]:
    """Check each of the user's own models in some of its configurations, for `CHECKING_S` at most.

    Args:
        trials: of any variants.
        vocab_size: of the corpus.
        split_sizes: tokens of both splits, whose last windows may be shorter than the others.
        fits: whether a trial fits into the memory of this machine; others are not checked.
        may_fail: whether some configurations of a variant may fail, as suggestions of a search.

    Returns:
        A warning for each variant whose trials depend on more than their settings and seed, whose
        configurations fail in part, or that cannot be checked on this machine.

    Raises:
        UserError: a model raises an error, returns no logits, sees the token that it has to
            predict, or has nothing to train.
    """
    found: dict[str, dict[tuple[str, int, str], TrialConfig]] = {}
    for trial in trials:
        if trial.model.variant not in VARIANTS:
            alike, training = found.setdefault(trial.model.variant, {}), trial.training
            shape = repr(trial.model.values), training.block_size, training.evaluation
            alike.setdefault(shape, trial)
    warnings = []
    for variant, alike in found.items():
        results = _checked_in_time(filter(fits, alike.values()), vocab_size, split_sizes)
        if warning := _summary(results, may_fail):
            warnings.append(f"{variant}: {warning}")
    return warnings


def _checked_in_time(
    trials: Iterator[TrialConfig], vocab_size: int, split_sizes: Sequence[int]
) -> Iterator[str | UserError]:
    """Yield the warning, which may be empty, or the error of one trial after another."""
    deadline = time.perf_counter() + CHECKING_S
    for trial in trials:
        try:
            yield _checked(trial, vocab_size, split_sizes)
        except UserError as refused:
            yield refused
        if time.perf_counter() > deadline:
            return


def _summary(results: Iterable[str | UserError], may_fail: bool) -> str:
    """Return the first warning; if some configurations may fail, the first failure instead."""
    warning, failure, works = "", None, False
    for result in results:
        if isinstance(result, str):
            warning, works = warning or result, True
        elif may_fail and result.__cause__:  # the model raised it
            failure = failure or result
        else:
            raise result
    if failure and not works:
        raise failure
    return f"some of its configurations will fail: {failure}" if failure else warning


def _checked(trial: TrialConfig, vocab_size: int, split_sizes: Sequence[int]) -> str:
    """Check a model without a trace in the process; return a warning, or an empty text."""
    before = torch.random.get_rng_state()
    try:
        with silenced():
            return _check(trial, vocab_size, split_sizes)
    except UserError as refused:
        if refused.__cause__ and _is_of_this_machine(refused.__cause__):
            return f"it cannot be tried on this machine: {refused}"
        raise
    finally:
        torch.random.set_rng_state(before)


def _is_of_this_machine(error: BaseException) -> bool:
    """Return whether the error may not occur on a larger machine, or one with a GPU."""
    message = str(error).lower()
    words = MEMORY_WORDS if torch.cuda.is_available() else (*MEMORY_WORDS, *GPU_WORDS)
    return isinstance(error, MemoryError) or any(word in message for word in words)


def _check(trial: TrialConfig, vocab_size: int, split_sizes: Sequence[int]) -> str:
    """Check a model; return a warning, or an empty text."""
    name = _name(trial)
    model, same_seed = _built(trial, vocab_size, name), _built(trial, vocab_size, name)
    candidate = Candidate(name, model, vocab_size)
    candidate.check_parts()
    is_seeded = isinstance(model, FittedModel) or have_equal_values(model, same_seed)
    chance = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(vocab_size, (ROWS, trial.training.block_size), generator=chance)
    if isinstance(model, FittedModel):
        tokens_N = torch.randint(vocab_size, (FITTED_ON,), generator=chance, dtype=torch.int32)
        with faults_of(f"{name}: fit must take token ids ({FITTED_ON},), and fails"):
            model.fit(tokens_N)
    else:
        candidate.check_step(ids_BT, "training")
    model.eval()
    with torch.inference_mode():
        for shape, purpose in _shapes(trial, model.context_size, split_sizes).items():
            candidate.logits(torch.randint(vocab_size, shape, generator=chance), purpose)
        candidate.check_repeatable(ids_BT)
        candidate.check_causal(ids_BT)
    if isinstance(model, FittedModel):
        return ""
    model.train()
    candidate.check_step(ids_BT, "training after an evaluation")
    if not is_seeded:
        return (
            "equal seeds give other initial values; draw all of them from `generator`, such as"
            " torch.nn.init.normal_(parameter, generator=generator), so that a trial can be"
            " repeated"
        )
    if candidate.is_random_in_training(ids_BT):
        return (
            "its forward pass is random in training, as with dropout, which no seed of a trial"
            " covers: a trial that is repeated may end elsewhere"
        )
    return ""


def _name(trial: TrialConfig) -> str:
    """Return the name of a model in messages: its variant and settings."""
    settings = {**trial.model.values, "block_size": trial.training.block_size}
    shown = ", ".join(f"{name}={brief(value)}" for name, value in settings.items())
    return f"{trial.model.variant} ({shown})"


def _built(trial: TrialConfig, vocab_size: int, name: str) -> LanguageModel:
    with faults_of(
        f"{name}: its class must take (config, vocab_size, block_size, generator), and fails"
    ):
        chance = initial_stream(trial.seed)
        return trial.model.build(vocab_size, trial.training.block_size, chance)


def _shapes(
    trial: TrialConfig, context_size: int, split_sizes: Sequence[int]
) -> dict[tuple[int, int], str]:
    """Return the shapes (B, T) of token ids in evaluations and sampling, with their purpose."""
    block_size = trial.training.block_size
    shapes = {(ROWS, block_size): "evaluation"}
    if trial.training.evaluation == "exact":
        for left in ((size - 1) % block_size for size in split_sizes):
            if left:
                shapes[1, left] = "the last window of an evaluation"
    longest = min(context_size, SAMPLE_CHARACTERS)
    for length in (*range(1, min(longest, SHORT) + 1), longest):
        shapes.setdefault((1, length), "sampling, which begins with one token")
    return shapes
