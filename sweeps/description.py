"""What the outbox keeps of a sweep and its trials: all that their runs in MLflow are made from."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from sweeps.plan import Plan
from sweeps.views import saved_views
from trainables.config import TrialConfig

LIBRARIES = ("torch", "numpy", "ray", "mlflow")


def describe_sweep(plan: Plan) -> dict[str, Any]:
    """Plain data for the experiment of a sweep and the run of the sweep itself."""
    params = [name for name in plan.varying if name != "variant"]
    factors = (name for name in params if _is_factor(plan, name))
    corpus = plan.corpus
    return {
        "description": plan.sweep.description,
        "uri": plan.sweep.tracking.uri,
        "code_version": code_version(),
        "tags": {"command": plan.command, "versions": versions()},
        "views": saved_views(params or ["variant"], next(factors, None), sweep=plan.sweep.name),
        "dataset": {
            "name": corpus.name,
            "digest": corpus.digest,
            "vocabulary": corpus.vocab_size,
            "train_tokens": len(corpus.train),
            "validation_tokens": len(corpus.validation),
        },
    }


def describe_trial(plan: Plan, trial: TrialConfig) -> dict[str, Any]:
    """Plain data for the run of a trial."""
    return {
        "name": plan.run_name(trial),
        "params": {name: canonical(value) for name, value in trial.flat.items()},
        "tags": {
            "variant": trial.model.variant,
            "seed": str(trial.seed),
            "corpus_digest": trial.corpus_digest,
        },
    }


def canonical(value: Any) -> str:
    """One spelling for each value: MLflow refuses to log 0.001 where it has 1e-3."""
    return repr(value) if isinstance(value, float) else str(value)


def code_version() -> str:
    """The installed version, and the commit where the code is a git checkout."""
    version = importlib.metadata.version("bigram-sweeps")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return version
    return f"{version}+{described.stdout.strip()}" if described.returncode == 0 else version


def versions() -> str:
    """Of Python and of the libraries that a result may depend on."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *found])


def _is_factor(plan: Plan, name: str) -> bool:
    """Whether a setting has words for values, such as pe_type."""
    return any(isinstance(trial.flat.get(name), str) for trial in plan.trials)
