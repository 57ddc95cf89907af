"""What the outbox keeps of a sweep and its trials: all that their runs in MLflow are made from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.planning.plan import Plan
from sweeps.planning.study_spec import SearchedArm, short_name
from sweeps.tracking.views import saved_views
from trainables.config import RESULT_VERSION, TrialConfig, canonical

CODE = Path(__file__).parents[2]
PACKAGES = ("analysis", "bigram_models", "sweeps", "trainables")
SEARCH_TAGS = ("stage", "rank", "stopped", "study")  # columns of the ranking of a search
COLOURS = (  # of lines, told apart by all eyes (Okabe and Ito 2008) and on white
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"),
    *("#7f3c8d", "#a6761d", "#666666", "#11a579"),
)
LIBRARIES = ("torch", "numpy", "ray", "mlflow", "optuna")


def describe_sweep(plan: Plan) -> dict[str, Any]:
    """Plain data for the experiment of a sweep and the run of the sweep itself."""
    params = list(plan.varying) or ["variant"]
    if plan.studies and "seed" not in params:  # those that confirm have others
        params.append("seed")
    corpus = plan.corpus
    return {
        "description": plan.sweep.description,
        "uri": plan.sweep.tracking.uri,
        "code_version": code_version(),
        "tags": {
            "description": plan.sweep.description,
            "command": plan.command,
            "versions": versions(),
            **_search(plan),
        },
        "views": saved_views(params, SEARCH_TAGS if plan.studies else (), sweep=plan.sweep.name),
        "dataset": {
            "name": corpus.name,
            "digest": corpus.digest,
            "vocabulary": corpus.vocab_size,
            "train_tokens": len(corpus.train),
            "validation_tokens": len(corpus.validation),
        },
        "studies": _studies(plan),
    }


def _studies(plan: Plan) -> list[dict[str, Any]]:
    """The trials that will confirm the winner of each study, without what it is to choose."""
    planned = []
    for cell in plan.studies:
        flats = [_held(arm) for arm in cell.arms]
        held = dict(set.intersection(*(set(flat.items()) for flat in flats)))
        tags = {
            "stage": "confirm",
            "study": cell.label,
            "rank": "1",
            "corpus_digest": plan.corpus.digest,
            "result_version": str(RESULT_VERSION),
        }
        if len(cell.arms) == 1:
            tags["arm"] = str(cell.arms[0].index)
        planned += [
            {
                "key": "",
                "name": cell.label,
                "params": {**held, "seed": str(seed)},
                "tags": tags,
            }
            for seed in plan.sweep.confirm_seeds
        ]
    return planned


def _held(arm: SearchedArm) -> dict[str, str]:
    """The settings that all trials of an arm have, as params."""
    tuned = {short_name(path) for path in arm.space}
    flat = arm.example.flat.items()
    return {name: canonical(value) for name, value in flat if name not in tuned}


def _search(plan: Plan) -> dict[str, str]:
    """What was searched, how and over which ranges, as the sweep's run shows it."""
    if not plan.studies:
        return {}
    sweep, search = plan.sweep, plan.sweep.search
    about = {
        "sampler": search.sampler,
        "stopping": search.early.rule,
        "objectives": search.objectives,
        "trials": search.budget,
        "hours": search.hours,
        "patience": search.patience,
        "seeds": sweep.seeds,
        "confirm_seeds": sweep.confirm_seeds,
    }
    spaces = [_space(plan, index) for index in range(len(sweep.arms))]
    distinct = [space for n, space in enumerate(spaces) if space and space not in spaces[:n]]
    arms = [distinct.index(space) if space else None for space in spaces]
    return {"search": json.dumps({**about, "spaces": distinct, "arms": arms})}


def _space(plan: Plan, index: int) -> dict[str, Any] | None:
    """What may be chosen in an arm, by short names: a list of choices, or a range."""
    arm = next((arm for cell in plan.studies for arm in cell.arms if arm.index == index), None)
    if arm is None:
        return None
    space: dict[str, Any] = {}
    for path, parameter in arm.space.items():
        about = parameter.model_dump(exclude={"choices", "when"})
        if parameter.choices is not None:
            about = {"choices": parameter.choices}
        else:
            about["high"] = parameter.highest
        if parameter.when:
            about["when"] = {short_name(other): few for other, few in parameter.when.items()}
        is_list = about.keys() == {"choices"}
        space[short_name(path)] = parameter.choices if is_list else about
    return space


def describe_trial(
    plan: Plan, trial: TrialConfig, tags: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Plain data for the run of a trial; ``tags`` say what it is in a search."""
    name = plan.names.run_name(trial)
    if tags and tags.get("stage") == "confirm":  # first, as the UI cuts names
        name = f"confirm {trial.seed}: {name}"
    return {
        "name": name,
        "params": {name: canonical(value) for name, value in trial.flat.items()},
        "tags": {
            "variant": trial.model.variant,
            "seed": str(trial.seed),
            "corpus_digest": trial.corpus_digest,
            "result_version": str(RESULT_VERSION),
            "mlflow.runColor": COLOURS[plan.names.kind(trial) % len(COLOURS)],
            **(tags or {}),
        },
        "costs": {name: cost(trial) for name, cost in plan.costs.items()},
    }


def code_version() -> str:
    """The installed version, with the commit of a git checkout, or else with a digest of the code.

    Code that came from another machine does not know; who sent it does (SWEEPS_CODE_VERSION).
    """
    if sent := os.environ.get("SWEEPS_CODE_VERSION"):
        return sent
    return f"{importlib.metadata.version('bigram-sweeps')}+{_commit() or _digest()}"


def _commit() -> str:
    """Of the checkout that the code is part of; empty where it is installed, or git is not."""
    if "site-packages" in CODE.parts:  # which may lie in the checkout of something else
        return ""
    command = ["git", "-C", str(CODE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _digest() -> str:
    """Of all files of the packages: equal for equal code, wherever it is installed."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((CODE / package).rglob("*.py")):
            digest.update(path.relative_to(CODE).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return f"code.{digest.hexdigest()[:12]}"


def versions() -> str:
    """Of Python and of the libraries that a result may depend on."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *found])
