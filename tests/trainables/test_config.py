"""A trial's settings, what decides its key, and the way there and back."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import trainables.config
from bigram_models import VARIANTS
from trainables.config import TrainingConfig, TrialConfig
from trainables.errors import UserError, validate

MakeTrial = Callable[..., TrialConfig]


@pytest.mark.parametrize(
    ("variant", "settings", "key"),
    [
        ("bigram", {}, "0e888728a431db61"),
        ("attention", {"pe_type": "rope", "n_embd": 64, "block_size": 16}, "2d1f80b1f5ce7d81"),
        ("count", {"smoothing": 1.0, "seed": 7}, "f2f7d650a7173aab"),
        ("factorized", {"evaluation": "sampled", "eval_batches": 100}, "73f92db5aef9c7ea"),
    ],
)
def test_keys_are_pinned(
    variant: str, settings: dict[str, Any], key: str, make_trial: MakeTrial
) -> None:
    """Another key for the same settings would train every finished trial again."""
    assert make_trial(variant, **settings).key == key


@pytest.mark.parametrize(
    "other",
    [
        {"variant": "factorized"},
        {"n_embd": 32},
        {"pe_type": "sinpe"},
        {"block_size": 16},
        {"batch_size": 65},
        {"learning_rate": 0.02},
        {"schedule": "cosine"},
        {"warmup_steps": 1},
        {"max_steps": 4_999},
        {"eval_every": 100},
        {"evaluation": "sampled"},
        {"seed": 1},
        {"corpus_digest": "of another text"},
    ],
    ids=str,
)
def test_each_deciding_setting_changes_the_key(
    other: dict[str, Any], make_trial: MakeTrial
) -> None:
    assert make_trial(**({"variant": "attention"} | other)).key != make_trial("attention").key


@pytest.mark.parametrize(
    ("variant", "shared", "idle"),
    [
        ("attention", {}, {"corpus": "another name for the same text"}),
        ("attention", {}, {"eval_batches": 7}),
        ("attention", {}, {"evaluate_train": "end"}),
        ("attention", {"evaluation": "sampled"}, {"evaluate_train": "exact"}),
        ("count", {}, {"evaluate_train": "exact"}),
        ("attention", {}, {"n_embd": 64}),  # its default, written out
        ("attention", {"learning_rate": 1}, {"learning_rate": 1.0}),
        ("count", {}, {"smoothing": 1}),
        ("count", {}, {"learning_rate": 1.0}),
        ("count", {}, {"schedule": "cosine", "warmup_steps": 9}),
        ("count", {}, {"precision": "bf16"}),
        ("count", {}, {"max_steps": 1}),
        ("count", {}, {"eval_every": 1}),
        ("count", {}, {"batch_size": 1}),
    ],
    ids=str,
)
def test_what_cannot_change_a_loss_does_not_change_the_key(
    variant: str, shared: dict[str, Any], idle: dict[str, Any], make_trial: MakeTrial
) -> None:
    assert make_trial(variant, **(shared | idle)).key == make_trial(variant, **shared).key


@pytest.mark.parametrize("setting", ["eval_batches", "batch_size", "block_size"])
@pytest.mark.parametrize("variant", ["attention", "count"])
def test_sampled_evaluation_makes_its_batches_decide(
    variant: str, setting: str, make_trial: MakeTrial
) -> None:
    one = make_trial(variant, evaluation="sampled")
    assert make_trial(variant, evaluation="sampled", **{setting: 3}).key != one.key


def test_a_new_result_version_changes_every_key(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_trial().key
    monkeypatch.setattr(trainables.config, "RESULT_VERSION", 10_000)
    assert make_trial().key != before


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_comes_back_from_json(variant: str, make_trial: MakeTrial) -> None:
    trial = make_trial(variant, block_size=5, learning_rate=0.1, seed=3, corpus="file:größe.txt")
    again = TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict())))
    assert again == trial
    assert again.key == trial.key
    assert again.flat == trial.flat


def test_flat_has_every_setting_by_its_short_name(make_trial: MakeTrial) -> None:
    assert make_trial("attention", n_embd=8, corpus="embedded").flat == {
        "variant": "attention",
        "pe_type": "rope",
        "n_embd": 8,
        "block_size": 8,
        "batch_size": 64,
        "learning_rate": 0.01,
        "schedule": "constant",
        "warmup_steps": 0,
        "precision": "float32",
        "max_steps": 5_000,
        "eval_every": 500,
        "evaluation": "exact",
        "eval_batches": 200,
        "seed": 1337,
        "corpus": "embedded",
    }


def refusal(trial: TrialConfig, part: str, settings: Any) -> str:
    """The message when a part of a good trial is replaced."""
    data = trial.to_dict()
    data[part] = data[part] | settings if isinstance(settings, dict) else settings
    with pytest.raises(UserError) as refused:
        TrialConfig.from_dict(data, "sweep.yaml")
    return str(refused.value)


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        ("model", {"pe_typ": "rope"}, "model.pe_typ: unknown setting 'pe_typ'; did you mean 'pe_t"),
        ("model", {"zzz": 1}, "model.zzz: unknown setting 'zzz'; known: n_embd, pe_type"),
        ("model", {"variant": "attenton"}, "unknown variant 'attenton'; did you mean 'attention'?"),
        ("model", {"variant": None}, "name one of bigram, factorized, attention, count"),
        ("model", {"pe_type": "alibi"}, "model.pe_type: "),
        ("model", {"n_embd": "64"}, "model.n_embd: should be a valid integer, not '64'"),
        ("model", {"n_embd": 7}, "model: n_embd=7 is odd"),
        ("model", {"n_embd": 0}, "model: n_embd must be at least 1, not 0"),
        ("model", {"n_embd": True}, "model.n_embd: should be a valid integer, not True"),
        ("training", {"blok_size": 8}, "unknown setting 'blok_size'; did you mean 'block_size'?"),
        ("training", {"block_size": 8.5}, "training.block_size: "),
        ("training", {"block_size": True}, "training.block_size: "),
        ("training", {"batch_size": 0}, "training.batch_size: should be greater than 0, not 0"),
        ("training", {"max_steps": -1}, "training.max_steps: "),
        ("training", {"eval_every": None}, "training.eval_every: "),
        ("training", {"learning_rate": float("nan")}, "training.learning_rate: "),
        ("training", {"learning_rate": float("inf")}, "training.learning_rate: "),
        ("training", {"learning_rate": "fast"}, "training.learning_rate: "),
        ("training", {"learning_rate": True}, "training.learning_rate: "),
        ("training", {"learning_rate": 0.0}, "training.learning_rate: "),
        ("training", {"evaluation": "never"}, "training.evaluation: "),
        ("training", {"evaluate_train": "all"}, "training.evaluate_train: "),
        ("seed", -1, "seed: "),
        ("seed", 2**64, "seed: "),
        ("seed", True, "seed: "),
        ("seed", "1337", "seed: "),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_with_its_place_and_remedy(
    part: str, settings: Any, message: str, make_trial: MakeTrial
) -> None:
    refused = refusal(make_trial("attention"), part, settings)
    assert refused.startswith(f"sweep.yaml.{part}")
    assert message in refused
    assert "\n" not in refused


@pytest.mark.parametrize("smoothing", [-1, float("nan"), float("inf"), "1", True, None])
def test_smoothing_must_be_a_number_that_can_be(smoothing: Any, make_trial: MakeTrial) -> None:
    assert "smoothing" in refusal(make_trial("count"), "model", {"smoothing": smoothing})


def test_settings_are_frozen(make_trial: MakeTrial) -> None:
    trial = make_trial("attention")
    with pytest.raises(ValueError, match="frozen"):
        trial.training.block_size = 9
    with pytest.raises(AttributeError):
        trial.model.settings.n_embd = 9


@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_the_cosine_schedule_is_that_of_torch(warmup_steps: int) -> None:
    training = TrainingConfig(
        learning_rate=0.3, schedule="cosine", warmup_steps=warmup_steps, max_steps=25
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25 - warmup_steps)
    expected = [0.3 * (step + 1) / 5 for step in range(warmup_steps)]
    for _ in range(25 - warmup_steps):
        expected.append(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    found = [training.learning_rate_at(step) for step in range(25)]
    assert found == pytest.approx(expected)
    constant = TrainingConfig(learning_rate=0.3, warmup_steps=warmup_steps, max_steps=25)
    assert constant.learning_rate_at(24) == 0.3
    assert constant.learning_rate_at(0) == pytest.approx(expected[0])


def test_a_warm_up_ends_within_the_training() -> None:
    with pytest.raises(UserError, match="warmup_steps=10 must be less than max_steps=10"):
        validate(TrainingConfig, {"warmup_steps": 10, "max_steps": 10}, "training")


def test_a_test_split_is_part_of_the_key_only_where_it_is_given(make_trial: MakeTrial) -> None:
    plain = make_trial("attention")
    tested = replace(plain, corpus_test=0.05)
    assert replace(plain, corpus_test=0.0, is_tested=True).key == plain.key
    assert replace(tested, is_tested=True).key == tested.key
    assert len({plain.key, tested.key, replace(plain, corpus_test=0.1).key}) == 3
    assert tested.flat == plain.flat | {"corpus_test": 0.05}
    assert "corpus_test" not in plain.to_dict()
    for trial in (tested, replace(tested, is_tested=True)):
        again = TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict())))
        assert again == trial
        assert again.with_seed(5) == replace(trial, seed=5)
