"""Whether a model of the user's own keeps the contract of `LanguageModel`, before it is trained.

Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from bigram_models import VARIANTS, FittedModel, LanguageModel
from trainables.batches import initial_stream
from trainables.config import TrialConfig
from trainables.errors import UserError

ROWS, LONGEST = 2, 16  # of the tokens that are tried
MOST = 20  # configurations of a variant that are tried
NEAR = 1e-4  # logits; what a later token changes of earlier ones by rounding is less
FITTED_ON = 64  # tokens


def check_models(trials: Iterable[TrialConfig], vocab_size: int) -> list[str]:
    """Try the first configurations of each variant that is the user's own.

    Returns:
        What makes its trials depend on more than their settings and seed, a line for each variant.

    Raises:
        UserError: a model returns what cannot be a loss, sees the token that it is to predict, or
            has nothing to train. A model that raises is not judged: its trial will say why.
    """
    found: dict[str, dict[tuple[str, int], TrialConfig]] = {}
    for trial in trials:
        if trial.model.variant not in VARIANTS:
            alike = found.setdefault(trial.model.variant, {})
            alike.setdefault((repr(trial.model.values), trial.training.block_size), trial)
    warnings = []
    for variant, alike in found.items():
        several = [_tried(trial, vocab_size) for trial in list(alike.values())[:MOST]]
        if warning := next(filter(None, several), ""):
            warnings.append(f"{variant}: {warning}")
    return warnings


def _tried(trial: TrialConfig, vocab_size: int) -> str:
    """A warning about a model, or nothing."""
    before = torch.random.get_rng_state()
    try:
        return _check(trial, vocab_size)
    except UserError:
        raise
    except (Exception, SystemExit):
        return ""
    finally:
        torch.random.set_rng_state(before)


def _check(trial: TrialConfig, vocab_size: int) -> str:
    def build() -> LanguageModel:
        return trial.model.build(vocab_size, trial.training.block_size, initial_stream(trial.seed))

    model, again, name = build(), build(), trial.model.variant
    chance = torch.Generator().manual_seed(0)
    if isinstance(model, FittedModel):
        model.fit(torch.randint(vocab_size, (FITTED_ON,), generator=chance))
    elif not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            f"{name} has no parameter to train; make one with torch.nn.Parameter, or derive from"
            " bigram_models.FittedModel"
        )
    length = min(LONGEST, model.context_size, trial.training.block_size)
    ids_BT = torch.randint(vocab_size, (ROWS, length), generator=chance)
    model.eval()
    _check_logits(name, model(ids_BT), (ROWS, length, vocab_size))
    _check_causal(name, model, ids_BT, vocab_size)
    model.train()
    if not isinstance(model, FittedModel) and _differ(model.state_dict(), again.state_dict()):
        return (
            "equal seeds give other initial values; draw all of them from `generator`, such as"
            " torch.nn.init.normal_(parameter, generator=generator), so that a trial can be"
            " repeated"
        )
    if not _repeats(lambda: model(ids_BT)):
        return (
            "its forward pass is random in training, as with dropout, which no seed of a trial"
            " covers: a trial that is repeated may end elsewhere"
        )
    return ""


def _check_logits(name: str, logits: object, shape: tuple[int, ...]) -> None:
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{name}: forward returns {type(logits).__name__}, not a tensor of logits (B, T, V)"
        )
    if tuple(logits.shape) != shape:
        raise UserError(
            f"{name}: forward returns shape {tuple(logits.shape)} for token ids {shape[:2]}; it"
            f" must be (B, T, V) = {shape}, a logit for each of the {shape[2]} characters"
        )
    if logits.dtype != torch.float32:
        raise UserError(f"{name}: forward returns {logits.dtype}; logits are torch.float32")


def _check_causal(name: str, model: LanguageModel, ids_BT: Tensor, vocab_size: int) -> None:
    """Change each token but the first: the logits before it must stay."""
    with torch.no_grad():
        logits_BTV = model(ids_BT)
        for at in range(1, ids_BT.shape[1]):
            changed_BT = ids_BT.clone()
            changed_BT[:, at] = (changed_BT[:, at] + 1) % vocab_size
            apart = (model(changed_BT) - logits_BTV)[:, :at].abs().max()
            if not apart <= NEAR * (1 + logits_BTV[:, :at].abs().max()):
                raise UserError(
                    f"{name} sees the future: its logits at earlier places change with the token at"
                    f" place {at}, so its loss would be too good; let each place use the tokens up"
                    " to itself alone"
                )


def _differ(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(state[key], other[key]) for key in state)


def _repeats(call: Callable[[], Tensor]) -> bool:
    with torch.no_grad():
        return torch.equal(call(), call())
