"""Made-up tuned sweeps, as the sweep service leaves them in MLflow."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from analysis import Trials, trials_of

SPACE = {
    "learning_rate": {"low": 0.001, "high": 0.1, "log": True, "step": None},
    "schedule": ["constant", "cosine"],
    "warmup_steps": {
        "low": 0, "high": 100, "log": False, "step": None, "when": {"schedule": ["cosine"]},
    },
}  # fmt: skip
SEARCH = {
    "sampler": "tpe", "stopping": "asha", "objectives": ["val_loss"], "trials": 300, "hours": None,
    "patience": None, "seeds": [1], "confirm_seeds": [2, 3, 4], "spaces": [SPACE], "arms": [0],
}  # fmt: skip


def scattered(loss: float, *what: object) -> float:
    """A loss with the noise of a seed: always the same for the same words."""
    chance = np.random.default_rng(zlib.crc32(repr(what).encode()))
    return loss + float(chance.normal(0, 0.001))


def run(
    params: Mapping[str, Any], loss: float | None, status: str = "FINISHED", **tags: Any
) -> Any:
    """A trial's run; its id tells what it is."""
    name = " ".join(f"{key}={value}" for key, value in {**tags, **params}.items())
    costs = {name: tags.pop(name) for name in ("parameters", "training_seconds") if name in tags}
    return SimpleNamespace(
        info=SimpleNamespace(run_id=name, run_name=name, status=status),
        data=SimpleNamespace(
            tags={name: str(value) for name, value in tags.items()},
            params={name: str(value) for name, value in params.items()},
            metrics=({} if loss is None else {"val_loss": loss}) | costs,
        ),
    )


def suggested(
    study: str, number: int, params: Mapping[str, Any], loss: float | None, **more: Any
) -> Any:
    """A trial of a suggestion, with seed 1 and 1,000 steps unless told."""
    params = {"max_steps": 1000, "seed": 1, **params}
    return run(params, loss, stage="search", study=study, suggestion=number, **{"arm": 0, **more})


def confirmed(
    study: str,
    params: Mapping[str, Any],
    losses: Iterable[float | None],
    rank: int = 1,
    **more: Any,
) -> list[Any]:
    """Trials on the seeds 2, 3 and so on."""
    params = {"max_steps": 1000, **params}
    return [
        run({**params, "seed": seed}, loss, "FAILED" if loss is None else "FINISHED",
            stage="confirm", study=study, rank=rank, **{"arm": 0, **more})
        for seed, loss in enumerate(losses, start=2)
    ]  # fmt: skip


def sweep(runs: Iterable[Any], **about: Any) -> Trials:
    """The trials of a sweep whose run says so about its search."""
    tags = {"search": json.dumps({**SEARCH, **about})}
    parent = SimpleNamespace(
        info=SimpleNamespace(run_id="sweep", experiment_id="7", status="FINISHED"),
        data=SimpleNamespace(tags=tags),
    )
    return trials_of("tuned", runs, parent)
