"""Running trials with Ray Tune, on this machine or a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RAY_ENVIRONMENT = {  # read by Ray when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # prints a box and each error, whatever the verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_THRESHOLD_S": "3600",
}
for name, value in RAY_ENVIRONMENT.items():
    os.environ.setdefault(name, value)

import ray  # noqa: E402
from ray import tune  # noqa: E402

from sweeps.events import Listener, TrialEvent  # noqa: E402
from sweeps.resources import Node, local_node  # noqa: E402
from sweeps.spec import Resources  # noqa: E402
from trainables.config import TrialConfig  # noqa: E402
from trainables.corpus import Corpus  # noqa: E402
from trainables.errors import UserError  # noqa: E402
from trainables.ray_trial import RayTrial  # noqa: E402

MAX_FAILURES = 3  # how often a trial whose worker died goes on from its checkpoint


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[list[Node]]:
    """A Ray cluster: the one at an address, else one of this machine for as long as this lasts.

    Yields:
        The machines of the cluster.

    Raises:
        UserError: there is no cluster at the address.
    """
    working_directory = os.getcwd()  # where the user's own models are imported from
    paths = [working_directory, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    node = local_node()
    local = {} if address else {"num_cpus": int(node.cpus), "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}},
            **local,
        )
    except (ConnectionError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}") from None
    try:
        alive = [one["Resources"] for one in ray.nodes() if one["Alive"]]
        yield [Node(has.get("CPU", 0), has.get("GPU", 0)) for has in alive]
    finally:
        ray.shutdown()


def run_trials(
    trials: Sequence[TrialConfig],
    corpus: Corpus,
    resources: Resources,
    at_once: int,
    folder: Path,
    listeners: Sequence[Listener],
) -> None:
    """Train the trials in this order, a number of them at once; return when none is left to train.

    Args:
        trials: what to train.
        corpus: put into Ray's object store once; the actors of a node share one copy.
        resources: what a trial gets.
        at_once: how many trials run at the same time.
        folder: where the trials keep their state.
        listeners: called on this thread for each event.
    """
    trainable = tune.with_resources(
        tune.with_parameters(
            RayTrial,
            corpus=corpus,
            root=folder,
            threads=max(1, int(resources.cpus_per_trial)),
            gpu=resources.gpus_per_trial > 0,
        ),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    settings = [{"key": trial.key, "trial": trial.to_dict()} for trial in trials]
    tuner = tune.Tuner(
        trainable,
        param_space={"carried": tune.grid_search(settings)},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            callbacks=[Recorder(listeners)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours go by key
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are ours to tell
    tuner.fit()


class Recorder(tune.Callback):  # type: ignore[misc]
    """Turns what Tune says into events."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; listeners stay in this process

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(trial, "started")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "evaluation" in result:
            self._say(
                trial, "evaluated", evaluation=result["evaluation"], hardware=result["hardware"]
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if "failure" in result:
            self._say(trial, "failed", reason=result["failure"])
        elif result.get("done"):
            self._say(trial, "finished")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(trial, "failed", reason=_reason(trial))

    def _say(self, trial: Any, kind: Any, **more: Any) -> None:
        event = TrialEvent(trial.config["carried"]["key"], kind, **more)
        for listener in self._listeners:
            listener(event)


def _reason(trial: Any) -> str:
    """The last line of what a trial died of."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else "the worker died"
