"""Artifacts of a finished trial: weights, configuration, a sample of its text, losses by block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bigram_models import LanguageModel
from bigram_models.generation import device_of, generate_together
from trainables.config import TrialConfig
from trainables.data.batches import stream
from trainables.data.corpus import decode, encode
from trainables.errors import UserError
from trainables.files import write_atomically
from trainables.training.evaluation import block_losses, evaluating
from trainables.training.loop import initial_state

WEIGHTS = "weights.safetensors"
CONFIGURATION = "model.json"
SAMPLE = "sample.txt"
SAMPLE_CHARACTERS = 500
BLOCKS = "blocks.csv"  # the name that analysis.results.text_blocks reads


def write_artifacts(
    folder: Path,
    trial: TrialConfig,
    model: LanguageModel,
    vocabulary: str,
    sample: str | None = None,
) -> None:
    """Write the artifacts of a trained model.

    Args:
        folder: made if it is missing.
        trial: that trained the model.
        model: the trained model.
        vocabulary: its characters in the order of their ids.
        sample: from `first_samples`, if it was drawn with those of other models.
    """
    # Copies, as safetensors refuses tensors that share memory, such as tied weights.
    state = model.state_dict().items()
    weights = {name: value.cpu().contiguous().clone() for name, value in state}
    write_atomically(folder / WEIGHTS, save(weights))
    configuration = {"trial": trial.to_dict(), "key": trial.key, "vocabulary": vocabulary}
    content = json.dumps(configuration, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CONFIGURATION, content.encode())
    if sample is None:
        (sample,) = first_samples([model], vocabulary, [trial.seed])
    write_atomically(folder / SAMPLE, sample.encode())


def write_blocks(folder: Path, model: LanguageModel, validation_N: Tensor, block_size: int) -> None:
    """Write the validation losses of the blocks of a text: how uncertain a loss is of the text.

    The file is a CSV with a row for each block, in the order of the text: ``predictions``, and
    their mean ``val_loss`` in nats per character.

    Args:
        folder: made if it is missing.
        model: the trained model.
        validation_N: its validation split, on its device.
        block_size: T of the windows of an evaluation.
    """
    rows = zip(*block_losses(model, validation_N, block_size), strict=True)
    lines = ["predictions,val_loss", *(f"{count},{loss:.9g}" for count, loss in rows)]
    write_atomically(folder / BLOCKS, "\n".join([*lines, ""]).encode())


def load_model(folder: Path) -> tuple[LanguageModel, str, TrialConfig]:
    """Load a trained model.

    Returns:
        The model on the CPU, its vocabulary, and the trial that trained it.

    Raises:
        UserError: the files are missing or damaged.
    """
    try:
        configuration = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
        vocabulary: str = configuration["vocabulary"]
        trial = TrialConfig.from_dict(configuration["trial"], str(folder / CONFIGURATION))
        model = initial_state(trial, len(vocabulary)).model
        model.load_state_dict(load_file(folder / WEIGHTS))
    except UserError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} holds no whole model: {error}") from None
    return model.eval(), vocabulary, trial


def first_prompt(vocabulary: str) -> str:
    """Return the default prompt: a new line, if the vocabulary has one."""
    return "\n" if "\n" in vocabulary else vocabulary[0]


def first_samples(
    models: Sequence[LanguageModel], vocabulary: str, seeds: Sequence[int]
) -> list[str]:
    """Return the samples that are artifacts; chance comes from the seeds of the trials."""
    prompt = first_prompt(vocabulary)
    return sample_texts(models, vocabulary, prompt, SAMPLE_CHARACTERS, seeds)


def sample_text(model: LanguageModel, vocabulary: str, prompt: str, length: int, seed: int) -> str:
    """Return the continuation of a prompt, without the prompt, as `sample_texts` does."""
    (text,) = sample_texts([model], vocabulary, prompt, length, [seed])
    return text


def sample_texts(
    models: Sequence[LanguageModel],
    vocabulary: str,
    prompt: str,
    length: int,
    seeds: Sequence[int],
) -> list[str]:
    """Return each model's continuation of a prompt, without the prompt.

    Args:
        models: trained models that `generate_together` takes.
        vocabulary: their characters in the order of their ids.
        prompt: at least one character, all of them in the vocabulary.
        length: in characters.
        seeds: of each model; equal seeds give equal text, whichever models are beside it.

    Raises:
        UserError: the prompt is empty or has a character that the models do not know.
        ValueError: the models cannot run as one.
    """
    if not prompt:
        raise UserError("the prompt is empty; give at least one character")
    prompt_T = torch.tensor(encode(prompt, vocabulary), device=device_of(models[0]))
    streams = [stream(seed, "sample") for seed in seeds]
    with evaluating(models):
        prompt_M1T = prompt_T.repeat(len(models), 1, 1)
        ids_M1T = generate_together(models, prompt_M1T, length, streams)
    return [decode(ids, vocabulary) for ids in ids_M1T[:, 0, len(prompt) :].tolist()]
