"""Running trials with Ray Tune, on this machine or a cluster."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler

from sweeps.process.stopping import FORCE_S, Stop
from sweeps.records.events import Kind, Listener, TrialEvent
from sweeps.resources.gpus import GpuShares
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from sweeps.spec.sweep_file import Resources
from trainables.data.corpus import Corpus
from trainables.persistence.storage import Storage
from trainables.worker.ray_trial import RayTrial
from trainables.worker.trial_log import TrialLog, log_of

# How often a worker may fail before it comes to its trial. One that dies later is counted by the
# trial itself (trainables.worker.durable.MAX_STARTS), which knows whether it got any further.
MAX_FAILURES = 20
ROUNDS = 5  # how often Tune is given a trial that it dropped: it does so when a worker dies idle


def run_trials(
    queue: Queue,
    corpus: Corpus,
    resources: Resources,
    packs: Packs,
    limit: Callable[[], int],
    storage: Storage,
    listeners: Sequence[Listener],
    stop: Stop,
    scratch: Path,
) -> None:
    """Train what is in the queue, a number of packs at once.

    Returns when none is left to train, or when a stop was requested; trials that run then save
    themselves.

    Args:
        queue: what to train next, and which running trials to leave.
        corpus: put into Ray's object store once; the actors of a node share one copy.
        resources: what a pack gets; one trial that runs out of a GPU's memory gets more of it.
        packs: which trials train together; those that run out of memory together do so in less.
        limit: how many packs may run now; asked again and again. Those beyond it save themselves
            and wait.
        storage: where the trials keep their state.
        listeners: called on this thread for each event, before the queue is.
        stop: asked between events; requested here when the storage cannot be written any more.
        scratch: a folder for Tune's own state, which nobody reads.

    Raises:
        KeyboardInterrupt: a stop took too long.
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
        # Tune pickles this: what it knows of a pack has to come with the pack.
        lambda config: tune.PlacementGroupFactory(
            [{"CPU": cpus, "GPU": config["carried"]["gpus"]}]
        ),
    )
    shares = GpuShares(resources.gpus)
    room = SlotLimit(limit)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are ours to tell
    recorder = Recorder(listeners, queue, packs, shares, stop, room, storage)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=Suggester(queue, packs, shares, stop, room),
            scheduler=Scheduler(room),
            num_samples=-1,  # as many as there are
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),  # Tune's own state: ours goes by key
            stop=Stopper(recorder, stop),
            callbacks=[recorder],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )
    stop.may_cut(FORCE_S)
    tuner.fit()


class SlotLimit:
    """How many packs run, and how many may: those that leave to make room are not counted."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._packs: set[str] = set()  # that run, by the key of their first trial
        self.leaving: set[str] = set()  # of these

    @property
    def is_full(self) -> bool:
        return len(self._packs) >= self._limit()

    def enter(self, pack: str) -> None:
        self._packs.add(pack)

    def must_leave(self, pack: str) -> bool:
        """Whether a pack is to make room; once it is, that holds."""
        if len(self._packs) - len(self.leaving) > self._limit():
            self.leaving.add(pack)
        return pack in self.leaving

    def left(self, pack: str) -> None:
        self._packs.discard(pack)
        self.leaving.discard(pack)


class Unpickled:
    """Tune pickles what it is given and never reads it back here; ours stays in this process."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Suggester(Unpickled, tune.search.Searcher):  # type: ignore[misc]
    """Gives Tune what is next in the queue, while there is room for it."""

    def __init__(
        self, queue: Queue, packs: Packs, shares: GpuShares, stop: Stop, room: SlotLimit
    ) -> None:
        super().__init__()
        self._queue, self._packs, self._shares = queue, packs, shares
        self._stop, self._room = stop, room

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            trials = [] if self._room.is_full else self._queue.next(self._packs)
        except self._queue.storage_errors as error:
            self._stop.request("storage", f"the search cannot be written: {error}")
            return None
        if trials:
            self._room.enter(trials[0].key)
            # As text: Tune copies its configurations, and keeps them to the end.
            given = json.dumps([trial.to_dict() for trial in trials])
            keys, gpus = [trial.key for trial in trials], self._shares.share_of(trials[0])
            return {"carried": {"keys": keys, "trials": given, "gpus": gpus}}
        return tune.search.Searcher.FINISHED if self._queue.is_over else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The recorder hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """What is to be kept is kept elsewhere."""


class Scheduler(Unpickled, FIFOScheduler):  # type: ignore[misc]
    """First come, first served; a worker that is kept for later goes when later is far.

    Three things that Tune has no switch for are done here, by what it keeps to itself.
    """

    def __init__(self, room: SlotLimit) -> None:
        super().__init__()
        self._room = room

    def choose_trial_to_run(self, tune_controller: Any, **options: Any) -> Any:
        tune_controller._trials_to_cache.clear()  # else 17 KB a trial, which it writes at the end
        trial = super().choose_trial_to_run(tune_controller, **options)
        # Tune gives a worker that is free to the first trial, and ends the one that starts for it:
        # where trials take less time than that, it never came to a second worker.
        starting = tune_controller._trial_to_actor
        if trial in starting:
            others = tune_controller._pending_trials - starting.keys()
            trial = min(others, key=tune_controller._pending_trials_list.index, default=trial)
        if trial is None and self._room.is_full:
            # An idle worker holds its CPUs and GPU, which are for others now.
            tune_controller._cleanup_cached_actors(force_all=True)
        return trial


class Stopper(Unpickled, tune.Stopper):  # type: ignore[misc]
    """Passes on what trials come to, and tells Tune which ones to leave: all at a stop."""

    def __init__(self, recorder: Recorder, stop: Stop) -> None:
        self._recorder = recorder
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._recorder.on_result(result["config"]["carried"], result)

    def stop_all(self) -> bool:
        return bool(self._stop.cause)


class Recorder(Unpickled, tune.Callback):  # type: ignore[misc]
    """Turns what Tune says of a pack into events of its trials.

    A trial of a pack that is neither finished nor failed is in the queue as one that runs.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        queue: Queue,
        packs: Packs,
        shares: GpuShares,
        stop: Stop,
        room: SlotLimit,
        storage: Storage,
    ) -> None:
        self._dropped: Counter[str] = Counter()  # how often Tune gave a trial up, by key
        self._listeners = [*listeners, queue.on_event]
        self._queue, self._packs, self._shares = queue, packs, shares
        self._stop, self._room, self._storage = stop, room, storage

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell_all(self._open(_carried(trial)), "started")

    def on_result(self, carried: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
        """Take what the trials of a pack came to; whether it is to be left."""
        for report in result["trials"]:
            self._on_report(carried, report)
        if result["done"]:
            return False
        if any(self._queue.stop_event(key) for key in self._open(carried)):
            return True
        return self._room.must_leave(carried["keys"][0])

    def _on_report(self, carried: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        key = report["key"]
        if "failure" in report:
            if not (report["out_of_memory"] and self._enlarge(key, carried["gpus"])):
                self._tell(TrialEvent(key, "failed", reason=report["failure"]))
            return
        names = ("step", "evaluations", "resumed", "notes", "hardware")
        self._tell(TrialEvent(key, "progressed", **{name: report[name] for name in names}))
        if report["done"] and self._queue.stop_event(key) is None:
            self._tell(TrialEvent(key, "finished"))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell_all(self._open(_carried(trial)), "restarted")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        carried, result = _carried(trial), trial.last_result or {}
        for kept in (trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps):
            kept.clear()  # 15 KB of statistics that Tune would keep to the end
        keys = self._open(carried)
        is_leaving = carried["keys"][0] in self._room.leaving
        self._room.left(carried["keys"][0])
        if storage := result.get("storage"):
            self._stop.request("storage", storage)
            return
        why = ""
        if split := result.get("split"):
            why = self._packs.split(map(self._queue.trial, keys), split)
            if reason := result.get("reason"):
                why += f" ({reason})"
        left = {key: self._queue.stop_event(key) for key in keys}
        for key in reversed(keys):  # each goes before those that wait
            if event := left[key]:
                self._tell(event)
            elif why or is_leaving or any(left.values()):
                self._tell(TrialEvent(key, "preempted", reason=why))

    def _enlarge(self, key: str, had: float) -> bool:
        """Let a trial go on with a larger share of a GPU, if there is one."""
        share = self._shares.grow(self._queue.trial(key), had)
        if share is None:
            return False
        said = f"did not fit into {had:.3g} of a GPU, goes on with {share:.3g}"
        self._tell(TrialEvent(key, "enlarged", reason=said))
        self._queue.requeue(key)
        return True

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune gives a pack up, whose worker died: its trials come again, but not for ever."""
        carried = _carried(trial)
        self._room.left(carried["keys"][0])
        error = trial.get_pickled_error() or trial.get_error() or "the worker died"
        for key in reversed(self._open(carried)):
            self._dropped[key] += 1
            self._tell(TrialEvent(key, "restarted"))
            if self._dropped[key] < ROUNDS:
                self._queue.requeue(key)
            else:
                self._give_up(key, str(error).strip())

    def _give_up(self, key: str, said: str) -> None:
        with contextlib.suppress(OSError):
            files = self._storage.open_trial(key)
            with contextlib.closing(TrialLog(log_of(files.folder))) as log:
                log.mark(f"failed: {said}")
            files.push()
        reason = said.splitlines()[-1].strip()
        self._tell(TrialEvent(key, "failed", reason=reason))

    def _open(self, carried: Mapping[str, Any]) -> list[str]:
        """The keys of those trials of a pack that are not done."""
        return [key for key in carried["keys"] if key in self._queue.running]

    def _tell_all(self, keys: Iterable[str], kind: Kind) -> None:
        for key in keys:
            self._tell(TrialEvent(key, kind))

    def _tell(self, event: TrialEvent) -> None:
        try:
            for listener in self._listeners:
                listener(event)
            for follows in self._queue.pending_events():
                self._tell(follows)
        except self._queue.storage_errors as error:  # the trial has it, and says it again
            self._stop.request("storage", f"what trials came to cannot be written: {error}")


def _carried(trial: Any) -> Mapping[str, Any]:
    carried: Mapping[str, Any] = trial.config["carried"]
    return carried
