"""Trials that take their steps as one are what they are alone."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bigram_models.positions import ENCODINGS
from bigram_models.stacked import LoopedModel, StackedModel
from tests.model_cases import SETTINGS, TRAINED
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler
from trainables.data.corpus import tokenise
from trainables.training.adamw import adamw_, adamw_scalars
from trainables.training.evaluation import exact_loss
from trainables.training.loop import (
    Splits,
    TrainingDivergedError,
    TrainingState,
    initial_state,
    take_steps,
    train,
)
from trainables.training.stack import Member, NotStackableError, Stack, stack_shape

MakeTrial = Callable[..., TrialConfig]
CORPUS = tokenise("verse", "to be or not to be, that is the question\n" * 40)
SPLITS = Splits.of(CORPUS, torch.device("cpu"))


def state_of(trial: TrialConfig) -> TrainingState:
    return initial_state(trial, CORPUS.vocab_size)


def alone(trial: TrialConfig) -> TrainingState:
    state = state_of(trial)
    list(train(state, SPLITS, trial.training, trial.seed))
    return state


def stack_of(trials: Sequence[TrialConfig]) -> tuple[Stack, list[TrainingState]]:
    states = [state_of(trial) for trial in trials]
    pairs = zip(trials, states, strict=True)
    return Stack([Member(*pair) for pair in pairs], SPLITS), states


def together(trials: Sequence[TrialConfig]) -> list[TrainingState]:
    stack, states = stack_of(trials)
    while stack.members:
        stack.advance()
    return states


def assert_same(one: TrainingState, other: TrainingState, within: float = 1e-5) -> None:
    assert one.step == other.step
    for (name, a), (_, b) in zip(
        one.model.state_dict().items(), other.model.state_dict().items(), strict=True
    ):
        assert float((a - b).norm()) <= within * float(b.norm()), name
    curves = [
        [(e.step, e.train_loss, e.val_loss, e.best_val_loss) for e in s.history]
        for s in (one, other)
    ]
    assert len(curves[0]) == len(curves[1])
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def optimizer_states(state: TrainingState) -> list[dict[str, Tensor]]:
    assert state.optimizer
    return [dict(state.optimizer.state[parameter]) for parameter in state.model.parameters()]


@pytest.mark.parametrize("evaluation", ["exact", "sampled"])
@pytest.mark.parametrize("variant", TRAINED)
def test_members_are_what_they_are_alone(
    make_trial: MakeTrial, variant: str, evaluation: str
) -> None:
    shared = {
        "batch_size": 8,
        "max_steps": 10,
        "eval_every": 4,
        "evaluation": evaluation,
        "eval_batches": 3,
    }
    own: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2, "learning_rate": 3e-3},
        {"seed": 1, "schedule": "cosine", "warmup_steps": 3},
    ]
    models = [SETTINGS[variant][0]] * len(own)
    if variant == "attention":  # all encodings in one stack
        models = [{"pe_type": pe_type, "n_embd": 8} for pe_type in ENCODINGS]
    trials = [
        make_trial(variant, **model, **shared, **settings)
        for model, settings in zip(models, itertools.cycle(own))
    ]
    assert len({stack_shape(trial) for trial in trials}) == 1
    for trial, state in zip(trials, together(trials), strict=True):
        expected = alone(trial)
        assert_same(state, expected)
        for ours, theirs in zip(optimizer_states(state), optimizer_states(expected), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_members_that_are_not_equally_far_go_on_from_where_they_are(make_trial: MakeTrial) -> None:
    trials = [make_trial(seed=seed, batch_size=4, max_steps=9, eval_every=3) for seed in range(3)]
    states = [state_of(trial) for trial in trials]
    sampler = WindowSampler(SPLITS.train, 4, 8)
    take_steps(states[1], sampler, 1, 2)
    next(train(states[2], SPLITS, trials[2].training, 2))
    stack = Stack([Member(*pair) for pair in zip(trials, states, strict=True)], SPLITS)
    assert [one.step for one in states] == [0, 2, 3]
    assert [result is not None for result in stack.advance()] == [False, True, False]
    assert [one.step for one in states] == [1, 3, 4]
    while stack.members:
        stack.advance()
    for trial, state in zip(trials, states, strict=True):
        assert_same(state, alone(trial))


@pytest.mark.parametrize("evaluate_train", ["slice", "exact", "end"])
@pytest.mark.parametrize("variant", ["factorized", "attention"])
def test_the_training_loss_of_members_is_of_the_same_part_as_alone(
    variant: str, evaluate_train: str, make_trial: MakeTrial
) -> None:
    settings = {"n_embd": 4, "batch_size": 4, "max_steps": 5, "eval_every": 3}
    trials = [
        make_trial(variant, seed=seed, evaluate_train=evaluate_train, **settings)
        for seed in range(2)
    ]
    for trial, state in zip(trials, together(trials), strict=True):
        assert_same(state, alone(trial))
        losses = [evaluation.train_loss is not None for evaluation in state.history]
        assert losses == [evaluate_train != "end", True]


def test_members_that_end_and_others_are_evaluated_at_once(make_trial: MakeTrial) -> None:
    trials = [make_trial(seed=seed, batch_size=4, max_steps=5, eval_every=3) for seed in range(2)]
    states = [state_of(trial) for trial in trials]
    take_steps(states[0], WindowSampler(SPLITS.train, 4, 8), 0, 1)
    next(train(states[1], SPLITS, trials[1].training, 1))
    stack = Stack([Member(*pair) for pair in zip(trials, states, strict=True)], SPLITS)
    stack.advance()
    assert [(state.step, len(state.history)) for state in states] == [(3, 1), (5, 2)]
    while stack.members:
        stack.advance()
    for trial, state in zip(trials, states, strict=True):
        assert_same(state, alone(trial))


def test_a_member_that_diverges_drops_out_and_the_others_go_on(make_trial: MakeTrial) -> None:
    settings = {"batch_size": 4, "max_steps": 6, "eval_every": 3}
    trials = [make_trial(seed=seed, **settings) for seed in range(3)]
    trials[1] = make_trial(seed=1, learning_rate=1e30, **settings)
    stack, states = stack_of(trials)
    first, bad, last = stack.advance()
    assert first
    assert last
    assert isinstance(bad, TrainingDivergedError)
    with pytest.raises(TrainingDivergedError) as expected:
        alone(trials[1])
    assert str(bad).split(" at ")[1] == str(expected.value).split(" at ")[1]  # the step
    assert [one.trial for one in stack.members] == [trials[0], trials[2]]
    assert len(stack.advance()) == 2
    assert stack.members == []
    for i in (0, 2):
        assert_same(states[i], alone(trials[i]))


def test_a_time_ends_it_between_steps_and_changes_nothing(make_trial: MakeTrial) -> None:
    trials = [make_trial(seed=seed, batch_size=4, max_steps=4, eval_every=2) for seed in range(2)]
    stack, states = stack_of(trials)
    results = []
    while stack.members:
        results.append([result is not None for result in stack.advance(within_s=0)])
    assert results == [[False, False], [True, True]] * 2
    for trial, state in zip(trials, states, strict=True):
        assert_same(state, alone(trial))
        assert state.training_s > 0


def test_each_member_is_charged_its_part_of_the_time(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_000))
    monkeypatch.setattr("trainables.training.stack.time.perf_counter", lambda: next(clock))
    trials = [make_trial(seed=seed, batch_size=4, max_steps=1, eval_every=1) for seed in range(4)]
    states = together(trials)
    assert [state.training_s for state in states] == [pytest.approx(states[0].training_s)] * 4
    assert sum(state.training_s for state in states) < next(clock)


def test_a_stack_gives_its_memory_back_with_the_last_reference(make_trial: MakeTrial) -> None:
    trials = [make_trial(seed=seed, batch_size=4, max_steps=2) for seed in range(2)]
    stack, states = stack_of(trials)
    stack.advance(within_s=0)
    gone = weakref.ref(stack)
    gc.disable()
    try:
        del stack
        assert gone() is None
    finally:
        gc.enable()
    assert all(state.step == 1 for state in states)


def test_shapes_say_which_trials_can_be_one(make_trial: MakeTrial) -> None:
    base = make_trial("attention", n_embd=8)
    same = [
        make_trial("attention", n_embd=8, seed=7, pe_type="randn", learning_rate=1.0),
        make_trial("attention", n_embd=8, schedule="cosine", warmup_steps=2),
    ]
    other = [
        make_trial("attention", n_embd=10),
        make_trial("attention", n_embd=8, block_size=4),
        make_trial("attention", n_embd=8, batch_size=3),
        make_trial("attention", n_embd=8, max_steps=2),
        make_trial("attention", n_embd=8, evaluation="sampled"),
        make_trial("factorized", n_embd=8),
        replace(base, corpus_digest="another"),
    ]
    assert {stack_shape(trial) for trial in same} == {stack_shape(base)}
    assert stack_shape(base) not in {stack_shape(trial) for trial in other}
    assert stack_shape(make_trial("count")) is None
    assert stack_shape(make_trial("bigram", evaluation="published")) is None


OWN = '''
from dataclasses import dataclass

import torch
from bigram_models import LanguageModel


class Gated(LanguageModel):
    """Knows nothing of stacks."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = 3

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.table = torch.nn.Parameter(torch.randn(vocab_size, config.width, generator=generator))
        self.idle = torch.nn.Parameter(torch.randn(2, generator=generator))
        self.fixed = torch.nn.Parameter(torch.randn(config.width), requires_grad=False)
        self.head = torch.nn.Linear(config.width, vocab_size)
        torch.nn.init.normal_(self.head.weight, generator=generator)
        torch.nn.init.zeros_(self.head.bias)
        torch.nn.init.normal_(self.fixed, generator=generator)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, ids_BT):
        x = self.table[ids_BT]
        mean = x.cumsum(1) / torch.arange(1, ids_BT.shape[1] + 1)[:, None]
        return self.head(torch.sigmoid(mean) * x + self.fixed)


class Deciding(Gated):
    def forward(self, ids_BT):
        return super().forward(ids_BT) * (2 if self.table.sum() > 0 else 3)


class Dropping(Gated):
    def forward(self, ids_BT):
        return torch.nn.functional.dropout(super().forward(ids_BT), 0.5)


class Secret(Gated):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.factor = float(torch.rand((), generator=generator))

    def forward(self, ids_BT):
        return super().forward(ids_BT) * self.factor


class Watching(Gated):
    """Keeps a running value while it trains, and uses it when it does not."""

    def forward(self, ids_BT):
        logits_BTV = super().forward(ids_BT)
        if self.training:
            self.seen.mul_(0.5).add_(logits_BTV.detach().mean())
            return logits_BTV * 2
        return logits_BTV + self.seen * torch.arange(logits_BTV.shape[-1])


class Recurrent(Gated):
    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(config, vocab_size, block_size, generator)
        self.mix = torch.nn.GRU(config.width, config.width, batch_first=True)
        for parameter in self.mix.parameters():
            torch.nn.init.normal_(parameter, generator=generator)

    def forward(self, ids_BT):
        return self.head(self.mix(self.table[ids_BT])[0])


'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial) -> MakeTrial:
    (tmp_path / "own_stacked.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, seed: int) -> TrialConfig:
        return make_trial(f"own_stacked:{name}", seed=seed, batch_size=4, max_steps=6, eval_every=3)

    return make


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Gated", StackedModel),
        ("Watching", StackedModel),
        ("Recurrent", LoopedModel),
        ("Deciding", LoopedModel),
        ("Secret", LoopedModel),
    ],
)
def test_a_model_of_the_users_own_needs_no_change(
    own: MakeTrial, name: str, model: type[StackedModel]
) -> None:
    trials = [own(name, seed) for seed in range(3)]
    assert type(stack_of(trials)[0]._model) is model
    for trial, state in zip(trials, together(trials), strict=True):
        assert_same(state, alone(trial))


def test_a_model_that_draws_from_the_global_state_is_refused(own: MakeTrial) -> None:
    with pytest.raises(NotStackableError, match="gives other logits in a stack than alone"):
        stack_of([own("Dropping", seed) for seed in range(2)])


def test_adamw_is_that_of_torch_for_each_member() -> None:
    chance = torch.Generator().manual_seed(0)
    rates, before = [1e-2, 3e-4, 1.0], [0, 5, 40]  # steps that were taken already
    values_MAB = torch.randn(3, 4, 5, generator=chance)
    references = [values_MAB[i].clone().requires_grad_() for i in range(3)]
    optimizers = [
        torch.optim.AdamW([reference], lr=rate)
        for reference, rate in zip(references, rates, strict=True)
    ]
    for i, optimizer in enumerate(optimizers):
        for _ in range(before[i]):
            references[i].grad = torch.randn(4, 5, generator=chance)
            optimizer.step()
    values_MP = torch.stack([reference.detach().flatten() for reference in references])
    average_MP, square_MP = (
        torch.stack(
            [
                o.state[r].get(name, torch.zeros(4, 5)).flatten()
                for o, r in zip(optimizers, references, strict=True)
            ]
        )
        for name in ("exp_avg", "exp_avg_sq")
    )
    scalars_MS3 = np.stack([
        adamw_scalars(np.full(7, rate), steps) for rate, steps in zip(rates, before, strict=True)
    ])  # fmt: skip
    scalars_S3M = torch.from_numpy(scalars_MS3).float().permute(1, 2, 0)
    for row in range(len(scalars_S3M)):
        gradient = torch.randn(3, 4, 5, generator=chance)
        adamw_(
            values_MP, gradient.flatten(1), average_MP, square_MP, scalars_S3M, torch.tensor([row])
        )
        for i, optimizer in enumerate(optimizers):
            references[i].grad = gradient[i]
            optimizer.step()
    expected = torch.stack([reference.detach().flatten() for reference in references])
    torch.testing.assert_close(values_MP, expected)


def test_a_rate_near_zero_moves_nothing_and_gives_numbers() -> None:
    scalars_13M = torch.from_numpy(adamw_scalars(np.array([0.0, 1e-300]), 4)).float().T[None]
    values_MP, gradient_MP = torch.ones(2, 3), torch.tensor([0.0, 1e-30, 1.0]).expand(2, 3)
    adamw_(values_MP, gradient_MP, *torch.zeros(2, 2, 3), scalars_13M, torch.tensor([0]))
    assert torch.equal(values_MP, torch.ones(2, 3))


class Operations(TorchDispatchMode):
    """Counts the operations that are no views: each is a pass over memory, a launch on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        aliases = [r.alias_info for r in func._schema.returns]
        is_view = any(alias and not alias.is_write for alias in aliases)
        if not is_view and func is not torch.ops.aten._unsafe_view.default:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("variant", "models", "most"),
    [
        ("bigram", [{}] * 3, 25),
        ("factorized", [{"n_embd": 8}] * 3, 40),
        ("attention", [{"pe_type": name, "n_embd": 8} for name in ENCODINGS], 45),
        ("attention", [{"pe_type": name, "n_embd": 64} for name in ENCODINGS], 45),
    ],
    ids=["bigram", "factorized", "mixed", "mixed, wider than V"],
)
def test_a_step_takes_few_operations(
    make_trial: MakeTrial, variant: str, models: list[dict[str, Any]], most: int
) -> None:
    trials = [make_trial(variant, **model, seed=i) for i, model in enumerate(models)]
    stack, _ = stack_of(trials)
    stack._table.fill([0] * len(trials), 2)
    stack._step()
    with Operations() as counted:
        stack._step()
    assert 10 < len(counted.names) <= most, counted.names


@pytest.mark.parametrize("evaluation", ["exact", "sampled"])
def test_members_are_tested_as_alone(make_trial: MakeTrial, evaluation: str) -> None:
    trials = [
        make_trial("attention", n_embd=4, seed=seed, batch_size=4, max_steps=6, eval_every=3,
                   evaluation=evaluation, eval_batches=2)
        for seed in range(3)
    ]  # fmt: skip
    states = [state_of(trial) for trial in trials]
    splits = replace(SPLITS, test=SPLITS.train[:50])
    stack = Stack([Member(*pair) for pair in zip(trials, states, strict=True)], splits)
    while stack.members:
        stack.advance()
    for state in states:
        first, last = state.history
        assert first.test_loss is None
        expected = exact_loss(state.model.eval(), SPLITS.train[:50], 8)
        assert last.test_loss == pytest.approx(expected, abs=1e-6)


def test_only_trials_that_are_all_tested_are_stacked(make_trial: MakeTrial) -> None:
    trial = make_trial("attention", n_embd=4)
    assert stack_shape(replace(trial, is_tested=True)) != stack_shape(trial)
