"""Running trials with Ray Tune, on this machine or a cluster."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RAY_ENVIRONMENT = {  # read by Ray when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # prints a box and each error, whatever the verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours to handle
    "TUNE_WARN_THRESHOLD_S": "3600",
}
for name, value in RAY_ENVIRONMENT.items():
    os.environ.setdefault(name, value)

import ray  # noqa: E402
import ray.tune.search  # noqa: E402
from ray import tune  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from sweeps.events import Listener, TrialEvent  # noqa: E402
from sweeps.queue import Queue  # noqa: E402
from sweeps.resources import Node, local_node  # noqa: E402
from sweeps.spec import Resources  # noqa: E402
from sweeps.stopping import Stop, gently  # noqa: E402
from trainables.config import trial_folder  # noqa: E402
from trainables.corpus import Corpus  # noqa: E402
from trainables.errors import UserError  # noqa: E402
from trainables.ray_trial import RayTrial  # noqa: E402
from trainables.trial_log import TrialLog, log_of  # noqa: E402

# How often a worker may fail before it comes to its trial. One that dies later is counted by the
# trial itself (trainables.durable.MAX_STARTS), which knows whether it got any further.
MAX_FAILURES = 20
ROUNDS = 5  # how often Tune is given a trial that it dropped: it does so when a worker dies idle


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
    on_sigterm = signal.getsignal(signal.SIGTERM)
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
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in place
        alive = [one["Resources"] for one in ray.nodes() if one["Alive"]]
        yield [Node(has.get("CPU", 0), has.get("GPU", 0)) for has in alive]
    except KeyboardInterrupt:
        raise  # out of the middle of Ray: it ends with this process, see `sweeps.command`
    except BaseException:
        _shutdown()
        raise
    else:
        _shutdown()


def _shutdown() -> None:
    """Leave the cluster.

    An object reference that is garbage collected on another thread while Ray shuts down ends the
    process: none is left for that.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def check_storage(folder: Path) -> None:
    """Let each machine of the cluster read a file of ours and write one back.

    Args:
        folder: must be the same on all of them.

    Raises:
        UserError: naming the machines where it is not, or not writable.
    """
    marker, word = folder / ".marker", secrets.token_hex(8)
    marker.write_text(word)
    try:
        replies = {
            node["NodeManagerAddress"]: _visit.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(folder, marker.name, word, node["NodeID"])
            for node in ray.nodes()
            if node["Alive"]
        }
        problems = {host: ray.get(reply) for host, reply in replies.items()}
    finally:
        for file in (marker, *folder.glob(f"{marker.name}.*")):
            file.unlink(missing_ok=True)
    said = "; ".join(f"{host}: {problem}" for host, problem in problems.items() if problem)
    if said:
        raise UserError(
            f"not every machine of the cluster can use the state directory ({said}); put it on"
            " storage that all of them share, at the same path, and name it with --state"
        )


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _visit(folder: Path, marker: str, word: str, name: str) -> str:
    """What keeps this machine from using the folder, or nothing."""
    try:
        if (folder / marker).read_text() != word:
            return "another directory lies there"
        (folder / f"{marker}.{name}").write_text(word)
    except OSError as error:
        return str(error)
    return ""


def run_trials(
    queue: Queue,
    corpus: Corpus,
    resources: Resources,
    at_once: int,
    folder: Path,
    listeners: Sequence[Listener],
    stop: Stop,
) -> None:
    """Train what is in the queue, a number of trials at once.

    Returns when none is left to train, or when a stop was requested; trials that run then save
    themselves.

    Args:
        queue: what to train next, and which running trials to leave.
        corpus: put into Ray's object store once; the actors of a node share one copy.
        resources: what a trial gets.
        at_once: how many trials run at the same time.
        folder: where the trials keep their state.
        listeners: called on this thread for each event, before the queue is.
        stop: asked between events; requested here when the folder cannot be written any more.

    Raises:
        KeyboardInterrupt: a stop took too long, or was requested twice.
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
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are ours to tell
    recorder = Recorder(listeners, queue, stop, folder)
    with gently(stop), tempfile.TemporaryDirectory(prefix="sweeps-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Suggester(queue, stop),
                num_samples=-1,  # as many as there are
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=scratch,  # Tune's own state: ours goes by key
                stop=Stopper(recorder, stop),
                callbacks=[recorder],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                verbose=0,
            ),
        )
        tuner.fit()


class Unpickled:
    """Tune pickles what it is given and never reads it back here; ours stays in this process."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Suggester(Unpickled, tune.search.Searcher):  # type: ignore[misc]
    """Gives Tune what is next in the queue."""

    def __init__(self, queue: Queue, stop: Stop) -> None:
        super().__init__()
        self._queue, self._stop = queue, stop

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            trial = self._queue.next()
        except self._queue.storage_errors as error:
            self._stop.request("storage", f"the search cannot be written: {error}")
            return None
        if trial is not None:
            return {"carried": {"key": trial.key, "trial": trial.to_dict()}}
        return tune.search.Searcher.FINISHED if self._queue.is_over else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The recorder hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """What is to be kept is kept elsewhere."""


class Stopper(Unpickled, tune.Stopper):  # type: ignore[misc]
    """Passes on what trials come to, and tells Tune which ones to leave: all at a stop."""

    def __init__(self, recorder: Recorder, stop: Stop) -> None:
        self._recorder = recorder
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._recorder.hear(result)

    def stop_all(self) -> bool:
        return bool(self._stop.cause)


class Recorder(Unpickled, tune.Callback):  # type: ignore[misc]
    """Turns what Tune says into events."""

    def __init__(
        self, listeners: Sequence[Listener], queue: Queue, stop: Stop, folder: Path
    ) -> None:
        self._dropped: Counter[str] = Counter()  # how often Tune gave a trial up, by key
        self._listeners = [*listeners, queue.listen]
        self._queue, self._stop, self._folder = queue, stop, folder

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(TrialEvent(_key(trial), "started"))

    def hear(self, result: dict[str, Any]) -> bool:
        """Take what a trial came to; whether it is to be left."""
        key = result["key"]
        if "step" in result:
            names = ("step", "evaluations", "taken_up", "notes", "hardware")
            self._tell(TrialEvent(key, "progressed", **{name: result[name] for name in names}))
        return self._queue.leave(key) is not None

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(TrialEvent(_key(trial), "restarted"))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key, result = _key(trial), trial.last_result or {}
        if "storage" in result:
            self._stop.request("storage", result["storage"])
        elif "failure" in result:
            self._tell(TrialEvent(key, "failed", reason=result["failure"]))
        elif left := self._queue.leave(key):
            self._tell(left)
        elif result.get("done"):
            self._tell(TrialEvent(key, "finished"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gives a trial up, whose worker died: it comes again, but not for ever."""
        key = _key(trial)
        error = trial.get_pickled_error() or trial.get_error() or "the worker died"
        self._dropped[key] += 1
        self._tell(TrialEvent(key, "restarted"))
        if self._dropped[key] < ROUNDS:
            self._queue.put_back(key)
            return
        said = str(error).strip()
        with contextlib.closing(TrialLog(log_of(trial_folder(self._folder, key)))) as log:
            log.mark(f"failed: {said}")
        reason = said.splitlines()[-1].strip()
        self._tell(TrialEvent(key, "failed", reason=reason))

    def _tell(self, event: TrialEvent) -> None:
        try:
            for listener in self._listeners:
                listener(event)
            for follows in self._queue.decided():
                self._tell(follows)
        except self._queue.storage_errors as error:  # the trial has it, and says it again
            self._stop.request("storage", f"what trials came to cannot be written: {error}")


def _key(trial: Any) -> str:
    return str(trial.config["carried"]["key"])
