"""Whether a model of the user's own keeps the contract of `LanguageModel`, before it is trained.

Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from bigram_models import VARIANTS, FittedModel, LanguageModel
from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.errors import UserError, brief
from trainables.own_modules import silenced
from trainables.persistence.artifacts import SAMPLE_CHARACTERS
from trainables.training.evaluation import next_token_loss
from trainables.variants import faults_of

ROWS = 2  # of the tokens that are tried
LONGEST = 16  # tokens: the places whose token is changed, and the lengths that are all tried
TRYING_S = 2.0  # seconds for the configurations of a variant; one at least is tried
NEAR = 1e-4  # logits, relative: differences by rounding are less
FITTED_ON = 64  # tokens
GPU_WORDS = ("cuda", "nvidia", "gpu")  # in an error, where there is none: it wants one
MEMORY_WORDS = ("allocate memory", "out of memory")


def check_models(
    trials: Iterable[TrialConfig],
    vocab_size: int,
    split_sizes: Sequence[int] = (),
    fits: Callable[[TrialConfig], bool] = lambda trial: True,
    may_fail: bool = False,
) -> list[str]:
    """Check each of the user's own models in some of its configurations, for `TRYING_S` at most.

    Args:
        trials: of any variants.
        vocab_size: of the corpus.
        split_sizes: tokens of both splits, whose last windows may be shorter than the others.
        fits: whether a trial fits into the memory of this machine; no other is tried.
        may_fail: whether some configurations of a variant may fail, as suggestions of a search.

    Returns:
        What makes its trials depend on more than their settings and seed, or why it could not be
        tried here, a line for each variant.

    Raises:
        UserError: a model raises, returns what cannot be a loss, sees the token that it is to
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
        tried = _tried_in_time(filter(fits, alike.values()), vocab_size, split_sizes)
        if warning := _summary(tried, may_fail):
            warnings.append(f"{variant}: {warning}")
    return warnings


def _tried_in_time(
    trials: Iterator[TrialConfig], vocab_size: int, split_sizes: Sequence[int]
) -> Iterator[str | UserError]:
    """A warning, nothing, or why it is refused, of one trial after another."""
    deadline = time.perf_counter() + TRYING_S
    for trial in trials:
        try:
            yield _tried(trial, vocab_size, split_sizes)
        except UserError as refused:
            yield refused
        if time.perf_counter() > deadline:
            return


def _summary(tried: Iterable[str | UserError], may_fail: bool) -> str:
    """The first warning; of what may fail in part, the first failure."""
    warning, failure, works = "", None, False
    for result in tried:
        if isinstance(result, str):
            warning, works = warning or result, True
        elif may_fail and result.__cause__:  # it raised
            failure = failure or result
        else:
            raise result
    if failure and not works:
        raise failure
    return f"some of its configurations will fail: {failure}" if failure else warning


def _tried(trial: TrialConfig, vocab_size: int, split_sizes: Sequence[int]) -> str:
    """A warning about a model, or nothing."""
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
    """Whether a larger machine, or one with a GPU, may do what this one could not."""
    said = str(error).lower()
    words = MEMORY_WORDS if torch.cuda.is_available() else (*MEMORY_WORDS, *GPU_WORDS)
    return isinstance(error, MemoryError) or any(word in said for word in words)


def _check(trial: TrialConfig, vocab_size: int, split_sizes: Sequence[int]) -> str:
    name = _name(trial)
    model, again = _built(trial, vocab_size, name), _built(trial, vocab_size, name)
    candidate = _Candidate(name, model, vocab_size)
    candidate.check_parts()
    is_seeded = isinstance(model, FittedModel) or _are_equal(model, again)
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
    """What a model is called in messages."""
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
    """The shapes of token ids in evaluations and in sampling, with what they are for."""
    block_size = trial.training.block_size
    shapes = {(ROWS, block_size): "evaluation"}
    if trial.training.evaluation == "exact":
        for left in ((size - 1) % block_size for size in split_sizes):
            if left:
                shapes[1, left] = "the last window of an evaluation"
    longest = min(context_size, SAMPLE_CHARACTERS)
    for length in (*range(1, min(longest, LONGEST) + 1), longest):
        shapes.setdefault((1, length), "sampling, which begins with one token")
    return shapes


@dataclass(frozen=True)
class _Candidate:
    """A model that is tried. Each check raises `UserError` for what it is not to be."""

    name: str
    model: LanguageModel
    vocab_size: int

    def check_parts(self) -> None:
        """Look for what training, sampling and the files of a trained model need."""
        model, context_size = self.model, getattr(self.model, "context_size", None)
        if type(context_size) is not int or context_size < 1:
            raise UserError(
                f"{self.name}: its context_size is {brief(context_size)}; it must be a whole number"
                " of 1 or more, which super().__init__(vocab_size, context_size=block_size) sets"
            )
        if any(is_lazy(parameter) for parameter in model.parameters()):
            raise UserError(
                f"{self.name}: some parameters have no size yet, as in lazy layers; give the sizes"
            )
        if isinstance(model, FittedModel):
            if not model.state_dict():
                raise UserError(
                    f"{self.name} has no tensor to keep what `fit` finds in; make one with"
                    " self.register_buffer in __init__"
                )
        elif not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(
                f"{self.name} has no parameter to train; make one with torch.nn.Parameter, or"
                " derive from bigram_models.FittedModel"
            )

    def logits(self, ids_BT: Tensor, purpose: str) -> Tensor:
        """The logits of a batch, which must be such."""
        given = tuple(ids_BT.shape)
        with faults_of(
            f"{self.name}: forward must take token ids {given}, in {purpose}, and fails"
        ):
            logits: object = self.model(ids_BT)
        if not isinstance(logits, Tensor):
            raise UserError(
                f"{self.name}: forward returns {type(logits).__name__}, not a tensor of logits"
                " (B, T, V)"
            )
        expected = (*given, self.vocab_size)
        if tuple(logits.shape) != expected:
            raise UserError(
                f"{self.name}: in {purpose}, forward returns shape {tuple(logits.shape)} for token"
                f" ids {given}; it must be (B, T, V) = {expected}, a logit for each of the"
                f" {self.vocab_size} characters"
            )
        if logits.dtype != torch.float32:
            raise UserError(
                f"{self.name}: forward returns {logits.dtype}; logits are torch.float32"
            )
        odd = logits.detach()[~logits.isfinite()]
        if len(odd):
            raise UserError(
                f"{self.name}: forward returns logits that are not finite, {len(odd)} of"
                f" {logits.numel()}, such as {float(odd[0])}; each must be a number, -1e9 for what"
                " cannot come next"
            )
        return logits

    def check_step(self, ids_BT: Tensor, purpose: str) -> None:
        """Take the gradient of a loss."""
        loss = next_token_loss(self.logits(ids_BT, purpose), ids_BT)
        if not loss.requires_grad:
            raise UserError(
                f"{self.name}: its logits have no gradient, so nothing would be trained; compute"
                " them from the parameters, without .detach(), .data or torch.no_grad()"
            )
        with faults_of(f"{self.name}: its backward pass fails, in {purpose}"):
            loss.backward()  # type: ignore[no-untyped-call]
        named = self.model.named_parameters()
        gradients = {name: each.grad for name, each in named if each.grad is not None}
        self.model.zero_grad()
        if not gradients:
            raise UserError(f"{self.name}: its logits depend on no parameter of it; use them")
        for name, gradient in gradients.items():
            if gradient.layout is not torch.strided:
                raise UserError(
                    f"{self.name}: the gradient of {name} is sparse, which AdamW cannot use; make"
                    " its nn.Embedding without sparse=True"
                )
            if not gradient.isfinite().all():
                raise UserError(
                    f"{self.name}: the gradient of {name} is not finite at the start, so the loss"
                    " would be nan after a step; look for divisions by zero, and for roots and"
                    " logarithms of zero"
                )

    def check_repeatable(self, ids_BT: Tensor) -> None:
        """Evaluate a text twice."""
        logits_BTV = self.logits(ids_BT, "evaluation").clone()
        apart = float((self.logits(ids_BT, "evaluation") - logits_BTV).abs().max())
        if apart > _near(logits_BTV):
            raise UserError(
                f"{self.name}: two evaluations of the same text differ, logits by up to"
                f" {apart:.3g}; outside training (self.training) nothing may be random, and nothing"
                " may stay from the call before"
            )

    def check_causal(self, ids_BT: Tensor) -> None:
        """Change the tokens but the first, each in turn: the logits before it must stay."""
        logits_BTV = self.logits(ids_BT, "evaluation").clone()
        last = ids_BT.shape[1] - 1
        for at in sorted({*range(1, min(LONGEST, last + 1)), last} - {0}):
            changed_BT = ids_BT.clone()
            changed_BT[:, at] = (changed_BT[:, at] + 1) % self.vocab_size
            changed_BTV = self.logits(changed_BT, "evaluation")
            apart = float((changed_BTV - logits_BTV)[:, :at].abs().max())
            if apart > _near(logits_BTV[:, :at]):
                raise UserError(
                    f"{self.name} sees the future: its logits at earlier places change with the"
                    f" token at place {at}, so its loss would be too good; let each place use the"
                    " tokens up to itself alone"
                )

    @torch.no_grad()
    def is_random_in_training(self, ids_BT: Tensor) -> bool:
        first, second = (self.logits(ids_BT, "training").clone() for _ in range(2))
        return not torch.equal(first, second)


def _near(logits: Tensor) -> float:
    return NEAR * (1 + float(logits.abs().max()))


def _are_equal(model: LanguageModel, other: LanguageModel) -> bool:
    state, others = model.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(state[k], others[k]) for k in state)
