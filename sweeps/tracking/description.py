"""The contents of a sweep's runs in MLflow, as plain data that the outbox keeps."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from analysis.trials.mlflow_store import DECIDE
from sweeps.planning.plan import Plan
from sweeps.planning.study_spec import SearchedArm, short_name
from sweeps.tracking.views import saved_views
from trainables.config import RESULT_VERSION, TrialConfig, canonical

CODE = Path(__file__).parents[2]
PACKAGES = ("analysis", "bigram_models", "sweeps", "trainables")
SEARCH_TAGS = ("stage", "rank", "stopped", "study")  # columns of the ranking of a search
COLOURS = (  # of lines, distinct to colour-blind readers (Okabe and Ito 2008) and on white
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"),
    *("#7f3c8d", "#a6761d", "#666666", "#11a579"),
)
LIBRARIES = ("torch", "numpy", "ray", "mlflow", "optuna")


def describe_sweep(plan: Plan, tags: Mapping[str, str] | None = None) -> dict[str, object]:
    """Return plain data for the experiment of a sweep and the sweep's own run, with these tags."""
    params = list(plan.varying) or ["variant"]
    if plan.studies and "seed" not in params:  # the trials that confirm winners have other seeds
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
            **_decide(plan),
            **(tags or {}),
        },
        "views": saved_views(params, SEARCH_TAGS if plan.studies else (), sweep=plan.sweep.name),
        "dataset": {
            "name": corpus.name,
            "digest": corpus.digest,
            "vocabulary": corpus.vocab_size,
            "train_tokens": len(corpus.train),
            "validation_tokens": len(corpus.validation),
            **({"test_tokens": len(corpus.test)} if len(corpus.test) else {}),
        },
        "studies": _studies(plan),
    }


def _studies(plan: Plan) -> list[dict[str, object]]:
    """Return the trials that will confirm the winner of each study, without the tuned settings."""
    planned: list[dict[str, object]] = []
    for study in plan.studies:
        flats = [_shared_settings(arm) for arm in study.arms]
        shared = dict(set.intersection(*(set(flat.items()) for flat in flats)))
        tags = {
            "stage": "confirm",
            "study": study.label,
            "rank": "1",
            "corpus_digest": plan.corpus.digest,
            "result_version": str(RESULT_VERSION),
        }
        if len(study.arms) == 1:
            tags["arm"] = str(study.arms[0].index)
        planned += [
            {
                "key": "",
                "name": study.label,
                "params": {**shared, "seed": str(seed)},
                "tags": tags,
            }
            for seed in plan.sweep.confirm_seeds
        ]
    return planned


def _shared_settings(arm: SearchedArm) -> dict[str, str]:
    """Return the settings that all trials of an arm share, as params."""
    tuned = {short_name(path) for path in arm.space}
    flat = arm.example.flat.items()
    return {name: canonical(value) for name, value in flat if name not in tuned}


def _search(plan: Plan) -> dict[str, str]:
    """Return the tag of the sweep's run that says what is searched, how and over which ranges."""
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


def _decide(plan: Plan) -> dict[str, str]:
    """Return the tag of the sweep's run that says when it stops to decide its claims."""
    if plan.sweep.decide is None:
        return {}
    about = plan.sweep.decide.model_dump() | {"seeds": plan.sweep.tested_seeds}
    return {DECIDE: json.dumps(about)}


def _space(plan: Plan, index: int) -> dict[str, object] | None:
    """Return the search space of an arm by short names: lists of choices, or ranges."""
    arm = next((arm for study in plan.studies for arm in study.arms if arm.index == index), None)
    if arm is None:
        return None
    space: dict[str, object] = {}
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
) -> dict[str, object]:
    """Return plain data for the run of a trial; ``tags`` give its place in a search."""
    name = plan.names.run_name(trial)
    if tags and tags.get("stage") == "confirm":  # the seed comes first, because the UI cuts names
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
    """Return the installed version, with the commit of a git checkout or else a digest of the code.

    Code that was sent to a cluster has neither: SWEEPS_CODE_VERSION has the sender's version.
    """
    if sent := os.environ.get("SWEEPS_CODE_VERSION"):
        return sent
    return f"{importlib.metadata.version('bigram-sweeps')}+{_commit() or _digest()}"


def _commit() -> str:
    """Return the commit of the checkout with the code; empty without a checkout or without git."""
    if "site-packages" in CODE.parts:  # these may be inside the checkout of another project
        return ""
    command = ["git", "-C", str(CODE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _digest() -> str:
    """Return a digest of the files of the packages, which is equal wherever they are."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((CODE / package).rglob("*.py")):
            digest.update(path.relative_to(CODE).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return f"code.{digest.hexdigest()[:12]}"


def versions() -> str:
    """Return the versions of Python and of the libraries that a result may depend on."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *found])
