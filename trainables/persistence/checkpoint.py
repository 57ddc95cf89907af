"""Saves a training state and loads it bit for bit, without pickles.

A checkpoint is one safetensors file: tensors (model, optimizer, random state) and a JSON header
with the sha256 of all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainables.files import write_atomically
from trainables.training.loop import Evaluation, TrainingState


class CheckpointError(ValueError):
    """The file is not a whole checkpoint of this trial."""


class Header(TypedDict):
    """What a checkpoint has besides its tensors."""

    key: str  # of the trial
    step: int
    training_s: float
    history: Sequence[Mapping[str, float | None]]  # fields of `Evaluation` by name


def save_checkpoint(
    state: TrainingState, path: Path, key: str, previous: Path | None = None
) -> None:
    """Write a checkpoint; at any moment the file is the whole old or the whole new one.

    Args:
        state: a state between two steps.
        path: the file; its folder is made.
        key: the key of the trial.
        previous: a new name for the old file; None drops it.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    if state.batches:
        tensors["random.batches"] = state.batches.get_state()
    for parameter, moments in _optimizer_state(state).items():
        tensors |= {f"optimizer.{parameter}.{name}": value for name, value in moments.items()}
    header: Header = {
        "key": key,
        "step": state.step,
        "training_s": state.training_s,
        "history": [asdict(evaluation) for evaluation in state.history],
    }
    # Copies: in a stack the step counts of all parameters share their memory.
    tensors = {name: tensor.detach().contiguous().to("cpu", copy=True)
               for name, tensor in tensors.items()}  # fmt: skip
    sealed = {**header, "sha256": _digest(header, tensors)}
    write_atomically(path, save(tensors, {"state": json.dumps(sealed)}), previous)


def load_checkpoint(state: TrainingState, path: Path, key: str) -> None:
    """Load a checkpoint into the initial state of its trial, in place.

    Raises:
        CheckpointError: the file is cut, altered, of another trial, or no checkpoint.
        OSError: it cannot be read; its content may be good.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.pop("sha256") != _digest(header, tensors):
            raise ValueError("its content is not what was saved")
        if header["key"] == key:
            _restore(state, header, tensors)
    except torch.OutOfMemoryError:  # a RuntimeError that does not depend on the file
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not a whole checkpoint ({reason})") from error
    if header["key"] != key:
        raise CheckpointError(f"{path} belongs to trial {header['key']}, not to {key}")


def _restore(state: TrainingState, header: Header, tensors: dict[str, Tensor]) -> None:
    state.model.load_state_dict(_below("model.", tensors))
    if state.batches:
        state.batches.set_state(tensors["random.batches"])
    if state.optimizer is not None:
        names = [name for name, _ in state.model.named_parameters()]
        moments = {i: _below(f"optimizer.{name}.", tensors) for i, name in enumerate(names)}
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step = header["step"]
    state.training_s = header["training_s"]
    state.history = [_evaluation(values) for values in header["history"]]


def _evaluation(values: Mapping[str, Any]) -> Evaluation:  # Any: as its fields are
    """Read an evaluation; earlier versions called its losses ``val_nats`` and so on."""
    fields = {name.replace("_nats", "_loss"): value for name, value in values.items()}
    step = int(fields.pop("step"))
    return Evaluation(step, **fields)


def _digest(header: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _optimizer_state(state: TrainingState) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer's tensors (moments and step count) by parameter name."""
    if state.optimizer is None:
        return {}
    return {
        name: dict(state.optimizer.state[parameter])
        for name, parameter in state.model.named_parameters()
        if parameter in state.optimizer.state
    }


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
