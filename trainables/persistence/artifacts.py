"""Artifacts of a finished trial: its weights, its configuration and a sample of its text."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bigram_models import LanguageModel
from trainables.config import TrialConfig
from trainables.data.batches import stream
from trainables.data.corpus import decode, encode
from trainables.errors import UserError
from trainables.files import write_atomically
from trainables.training.loop import initial_state

WEIGHTS = "weights.safetensors"
CONFIGURATION = "model.json"
SAMPLE = "sample.txt"
SAMPLE_CHARACTERS = 500


def write_artifacts(
    folder: Path, trial: TrialConfig, model: LanguageModel, vocabulary: str
) -> None:
    """Write the artifacts of a trained model; chance in the sample comes from the trial's seed.

    Args:
        folder: made if it is missing.
        trial: that trained the model.
        model: the trained model.
        vocabulary: its characters in the order of their ids.
    """
    # Copies, as safetensors refuses tensors that share memory, such as tied weights.
    state = model.state_dict().items()
    weights = {name: value.cpu().contiguous().clone() for name, value in state}
    write_atomically(folder / WEIGHTS, save(weights))
    configuration = {"trial": trial.to_dict(), "key": trial.key, "vocabulary": vocabulary}
    content = json.dumps(configuration, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CONFIGURATION, content.encode())
    prompt = first_prompt(vocabulary)
    text = sample_text(model, vocabulary, prompt, SAMPLE_CHARACTERS, trial.seed)
    write_atomically(folder / SAMPLE, text.encode())


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


def sample_text(model: LanguageModel, vocabulary: str, prompt: str, length: int, seed: int) -> str:
    """Return the continuation of a prompt, without the prompt.

    Args:
        model: a trained model.
        vocabulary: its characters in the order of their ids.
        prompt: at least one character, all of them in the vocabulary.
        length: in characters.
        seed: equal seeds give equal text.

    Raises:
        UserError: the prompt is empty or has a character that the model does not know.
    """
    if not prompt:
        raise UserError("the prompt is empty; give at least one character")
    device = next(iter(model.state_dict().values())).device
    prompt_1T = torch.tensor([encode(prompt, vocabulary)], device=device)
    ids = model.generate(prompt_1T, length, stream(seed, "sample", device))
    return decode(ids[0, len(prompt) :].tolist(), vocabulary)
