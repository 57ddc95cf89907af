"""What a finished trial leaves behind can be read back, and writes text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import dropout

from bigram_models import BigramTable, LanguageModel
from tests.model_cases import every_model
from trainables.config import TrialConfig
from trainables.data.batches import stream
from trainables.errors import UserError
from trainables.persistence.artifacts import (
    load_model,
    sample_text,
    sample_texts,
    write_artifacts,
    write_blocks,
)
from trainables.training.evaluation import block_losses
from trainables.training.loop import Splits, initial_state, train

MakeTrial = Callable[..., TrialConfig]
VOCABULARY = "\n abcdé漢"
V = len(VOCABULARY)
SPLITS = Splits(
    *(
        torch.randint(V, (length,), generator=stream(length, "text"), dtype=torch.int32)
        for length in (300, 60)
    )
)


def trained(trial: TrialConfig) -> LanguageModel:
    state = initial_state(trial, V)
    list(train(state, SPLITS, trial.training, trial.seed))
    return state.model


@pytest.fixture
def trial(make_trial: MakeTrial) -> TrialConfig:
    return make_trial("attention", n_embd=4, max_steps=3, batch_size=4)


@pytest.fixture
def folder(trial: TrialConfig, tmp_path: Path) -> Path:
    write_artifacts(tmp_path / "artifacts", trial, trained(trial), VOCABULARY)
    return tmp_path / "artifacts"


@every_model
def test_a_model_comes_back_with_its_trial_and_vocabulary(
    variant: str, settings: dict[str, Any], make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial(variant, max_steps=3, batch_size=4, **settings)
    model = trained(trial)
    write_artifacts(tmp_path, trial, model, VOCABULARY)
    loaded, vocabulary, loaded_trial = load_model(tmp_path)
    ids = SPLITS.train[None, :8].long()
    assert torch.equal(loaded(ids), model(ids))
    assert vocabulary == VOCABULARY
    assert loaded_trial == trial
    sample = (tmp_path / "sample.txt").read_bytes().decode()
    assert len(sample) == 500
    assert sample == sample_text(loaded, vocabulary, "\n", 500, trial.seed)


def test_the_configuration_is_readable_json(folder: Path, trial: TrialConfig) -> None:
    text = (folder / "model.json").read_text(encoding="utf-8")
    assert "é漢" in text
    assert json.loads(text)["key"] == trial.key
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.json",
        "sample.txt",
        "weights.safetensors",
    ]


def test_a_sample_depends_on_its_seed_only(folder: Path) -> None:
    model, vocabulary, _ = load_model(folder)
    torch.manual_seed(1)
    one = sample_text(model, vocabulary, "ab", 40, seed=0)
    torch.manual_seed(2)
    assert len(one) == 40
    assert set(one) <= set(VOCABULARY)
    assert sample_text(model, vocabulary, "ab", 40, seed=0) == one
    assert sample_text(model, vocabulary, "ab", 40, seed=1) != one


def test_texts_of_several_models_are_those_of_each_alone(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("attention", n_embd=4, max_steps=3, batch_size=4, seed=seed, pe_type=name)
        for seed, name in enumerate(("rope", "sinpe", "rope"))
    ]
    models, seeds = [trained(trial) for trial in trials], [5, 6, 5]
    texts = sample_texts(models, VOCABULARY, "ab", 60, seeds)
    assert texts == [
        sample_text(model, VOCABULARY, "ab", 60, seed)
        for model, seed in zip(models, seeds, strict=True)
    ]
    assert len(set(texts)) == 3


class Dropping(BigramTable):
    """A table whose forward pass is random in training."""

    def forward(self, ids_BT: Tensor) -> Tensor:
        return dropout(super().forward(ids_BT), training=self.training)


def test_a_sample_is_drawn_outside_of_training() -> None:
    model = Dropping(Dropping.Config(), V, 8, stream(0, "model"))
    texts = [sample_text(model, VOCABULARY, "a", 60, seed=0) for _ in range(2)]
    assert texts[0] == texts[1]
    assert model.training


def test_a_vocabulary_without_a_newline_has_a_sample(trial: TrialConfig, tmp_path: Path) -> None:
    write_artifacts(tmp_path, trial, trained(trial), "abcdefgh")
    assert set((tmp_path / "sample.txt").read_text()) <= set("abcdefgh")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "the prompt is empty"), ("abX", "the character 'X' does not occur")],
)
def test_a_prompt_that_cannot_be_continued_is_refused(
    prompt: str, message: str, folder: Path
) -> None:
    model, vocabulary, _ = load_model(folder)
    with pytest.raises(UserError, match=message):
        sample_text(model, vocabulary, prompt, 5, seed=0)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def other_weights(file: Path) -> None:
    file.write_bytes(safetensors.torch.save({"embed_VD": torch.zeros(2, 2)}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.json", Path.unlink),
        ("weights.safetensors", Path.unlink),
        ("model.json", cut),
        ("weights.safetensors", cut),
        ("weights.safetensors", other_weights),
        ("model.json", lambda file: file.write_text("{}")),
        ("model.json", lambda file: file.write_text("[]")),
        ("model.json", lambda file: file.write_text('{"trial": {}, "vocabulary": "ab"}')),
        ("model.json", lambda file: file.write_bytes(b"\xff\xfe")),
    ],
)
def test_a_damaged_folder_is_refused(
    name: str, damage: Callable[[Path], object], folder: Path
) -> None:
    damage(folder / name)
    with pytest.raises(UserError, match="holds no whole model"):
        load_model(folder)


def test_count_weights_without_a_part_are_refused(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial("count")
    write_artifacts(tmp_path, trial, trained(trial), VOCABULARY)
    other_weights(tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="holds no whole model"):
        load_model(tmp_path)


def test_weights_may_be_tied(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial("factorized", n_embd=V)
    model = trained(make_trial("factorized", n_embd=V, max_steps=2, batch_size=4))
    (table,) = (p for n, p in model.named_parameters() if n.startswith("embed"))
    model.register_parameter("tied", table)
    write_artifacts(tmp_path, trial, model, VOCABULARY)
    saved = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert torch.equal(saved["tied"], table)


def test_the_losses_of_blocks_are_a_small_table(trial: TrialConfig, tmp_path: Path) -> None:
    model, text = trained(trial), torch.arange(1_000, dtype=torch.int32) % V
    write_blocks(tmp_path, model, text, trial.training.block_size)
    first, *rows = (tmp_path / "blocks.csv").read_text().splitlines()
    assert first == "predictions,val_loss"
    expected = block_losses(model, text, trial.training.block_size)
    counts, losses = zip(*(row.split(",") for row in rows), strict=True)
    assert [int(count) for count in counts] == expected[0] == [333, 333, 333]
    assert [float(loss) for loss in losses] == pytest.approx(expected[1], rel=1e-8)
