"""Running trials with Ray Tune, on this machine or a cluster."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler

from sweeps.events import Listener, TrialEvent
from sweeps.gpus import GpuShares
from sweeps.queue import Queue
from sweeps.spec import Resources
from sweeps.stopping import Stop, gently
from trainables.corpus import Corpus
from trainables.ray_trial import RayTrial
from trainables.storage import Storage
from trainables.trial_log import TrialLog, log_of

# How often a worker may fail before it comes to its trial. One that dies later is counted by the
# trial itself (trainables.durable.MAX_STARTS), which knows whether it got any further.
MAX_FAILURES = 20
ROUNDS = 5  # how often Tune is given a trial that it dropped: it does so when a worker dies idle


def run_trials(
    queue: Queue,
    corpus: Corpus,
    resources: Resources,
    limit: Callable[[], int],
    storage: Storage,
    listeners: Sequence[Listener],
    stop: Stop,
) -> None:
    """Train what is in the queue, a number of trials at once.

    Returns when none is left to train, or when a stop was requested; trials that run then save
    themselves.

    Args:
        queue: what to train next, and which running trials to leave.
        corpus: put into Ray's object store once; the actors of a node share one copy.
        resources: what a trial gets; one that runs out of a GPU's memory gets more of it.
        limit: how many trials may run now; asked again and again. Trials beyond it save themselves
            and wait.
        storage: where the trials keep their state.
        listeners: called on this thread for each event, before the queue is.
        stop: asked between events; requested here when the storage cannot be written any more.

    Raises:
        KeyboardInterrupt: a stop took too long, or was requested twice.
    """
    cpus = resources.cpus_per_trial
    trainable = tune.with_resources(
        tune.with_parameters(
            RayTrial,
            corpus=corpus,
            storage=storage,
            threads=max(1, int(cpus)),
            gpu=resources.gpus > 0,
        ),
        # Tune pickles this: what it knows of a trial has to come with the trial.
        lambda config: tune.PlacementGroupFactory(
            [{"CPU": cpus, "GPU": config["carried"]["gpus"]}]
        ),
    )
    shares = GpuShares(resources.gpus)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are ours to tell
    recorder = Recorder(listeners, queue, shares, stop, limit, storage)
    with gently(stop), tempfile.TemporaryDirectory(prefix="sweeps-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Suggester(queue, shares, stop, limit),
                scheduler=Scheduler(queue, limit),
                num_samples=-1,  # as many as there are
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
    """Gives Tune what is next in the queue, while there is room for it."""

    def __init__(
        self, queue: Queue, shares: GpuShares, stop: Stop, limit: Callable[[], int]
    ) -> None:
        super().__init__()
        self._queue, self._shares, self._stop, self._limit = queue, shares, stop, limit

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        is_full = len(self._queue.running) >= self._limit()
        try:
            trial = None if is_full else self._queue.next()
        except self._queue.storage_errors as error:
            self._stop.request("storage", f"the search cannot be written: {error}")
            return None
        if trial is not None:
            gpus = self._shares.of(trial)
            return {"carried": {"key": trial.key, "trial": trial.to_dict(), "gpus": gpus}}
        return tune.search.Searcher.FINISHED if self._queue.is_over else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The recorder hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """What is to be kept is kept elsewhere."""


class Scheduler(Unpickled, FIFOScheduler):  # type: ignore[misc]
    """First come, first served; a worker that is kept for later goes when later is far."""

    def __init__(self, queue: Queue, limit: Callable[[], int]) -> None:
        super().__init__()
        self._queue, self._limit = queue, limit

    def choose_trial_to_run(self, tune_controller: Any, **options: Any) -> Any:
        trial = super().choose_trial_to_run(tune_controller, **options)
        if trial is None and len(self._queue.running) >= self._limit():
            # An idle worker holds its CPUs and GPU, which are for others now.
            tune_controller._cleanup_cached_actors(force_all=True)
        return trial


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
        self,
        listeners: Sequence[Listener],
        queue: Queue,
        shares: GpuShares,
        stop: Stop,
        limit: Callable[[], int],
        storage: Storage,
    ) -> None:
        self._limit = limit
        self._yielding: set[str] = set()  # keys: they make room for other sweeps
        self._dropped: Counter[str] = Counter()  # how often Tune gave a trial up, by key
        self._listeners = [*listeners, queue.listen]
        self._queue, self._shares, self._stop, self._storage = queue, shares, stop, storage

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(TrialEvent(_key(trial), "started"))

    def hear(self, result: dict[str, Any]) -> bool:
        """Take what a trial came to; whether it is to be left."""
        key = result["key"]
        if "step" in result:
            names = ("step", "evaluations", "taken_up", "notes", "hardware")
            self._tell(TrialEvent(key, "progressed", **{name: result[name] for name in names}))
        if self._queue.leave(key) is not None:
            return True
        if not result.get("done") and self._running > self._limit():
            self._yielding.add(key)
        return key in self._yielding

    @property
    def _running(self) -> int:
        """Trials that are to go on running."""
        return len(self._queue.running) - len(self._yielding)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(TrialEvent(_key(trial), "restarted"))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key, result = _key(trial), trial.last_result or {}
        if "storage" in result:
            self._stop.request("storage", result["storage"])
        elif "failure" in result:
            had = trial.config["carried"]["gpus"]
            if not (result["out_of_memory"] and self._enlarge(key, had)):
                self._tell(TrialEvent(key, "failed", reason=result["failure"]))
        elif left := self._queue.leave(key):
            self._tell(left)
        elif key in self._yielding:
            self._tell(TrialEvent(key, "yielded"))
        elif result.get("done"):
            self._tell(TrialEvent(key, "finished"))
        self._yielding.discard(key)

    def _enlarge(self, key: str, had: float) -> bool:
        """Let a trial go on with a larger share of a GPU, if there is one."""
        share = self._shares.grow(self._queue.trial(key), had)
        if share is None:
            return False
        said = f"did not fit into {had:.3g} of a GPU, goes on with {share:.3g}"
        self._tell(TrialEvent(key, "enlarged", reason=said))
        self._queue.put_back(key)
        return True

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gives a trial up, whose worker died: it comes again, but not for ever."""
        key = _key(trial)
        self._yielding.discard(key)
        error = trial.get_pickled_error() or trial.get_error() or "the worker died"
        self._dropped[key] += 1
        self._tell(TrialEvent(key, "restarted"))
        if self._dropped[key] < ROUNDS:
            self._queue.put_back(key)
            return
        said = str(error).strip()
        with contextlib.suppress(OSError):
            files = self._storage.take_up(key)
            with contextlib.closing(TrialLog(log_of(files.folder))) as log:
                log.mark(f"failed: {said}")
            files.push()
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
