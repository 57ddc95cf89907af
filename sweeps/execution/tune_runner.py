"""Runs trials with Ray Tune, on this machine or a cluster.

    run_trials     starts Tune
    Suggester      gives Tune the next pack of trials
    Scheduler      chooses the pack that gets a free actor
    Stopper        takes the results of packs, and stops them
    TuneCallback   takes all other events of packs

A trial of Tune carries one pack of our trials.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Protocol

from ray import tune
from ray.tune.schedulers import FIFOScheduler

from sweeps.cluster.notices import Places, notices
from sweeps.execution.pack_events import DriverContext, PackEvents
from sweeps.execution.slots import SlotLimit
from sweeps.process.stopping import FORCE_S, Stop
from sweeps.records.events import Listener
from sweeps.resources.gpus import GpuShares
from sweeps.resources.packs import Packs
from sweeps.search.queue import Queue
from sweeps.spec.sweep_file import Resources
from trainables.data.corpus import Corpus
from trainables.persistence.storage import Storage
from trainables.worker.ray_trial import RayTrial, RayTrialConfig, RayTrialResult

# How often a worker may die before it starts its trials. One that dies later is counted by the
# trial itself (trainables.worker.durable.MAX_STARTS), which knows whether it made any progress.
MAX_FAILURES = 20
# Evaluations of small trials on a GPU come faster than Tune takes them one by one.
REPORT_S = 0.5


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
    """Train the trials of a queue until none is left, or a stop is requested.

    Args:
        queue: what to train next, and which running trials to stop.
        corpus: put into Ray's object store once; the actors of a node share one copy.
        resources: of a pack. A trial that runs out of a GPU's memory gets a larger share of it.
        packs: which trials train together. Packs that run out of memory are split.
        limit: how many packs may run now, asked repeatedly. Packs beyond it are preempted.
        storage: where the trials store their state.
        listeners: called on this thread for each event, before the queue is.
        stop: asked between events, and requested here if the storage cannot be written. Trials
            that run then save themselves.
        scratch: a folder for Tune's own state, which nobody reads.

    Raises:
        KeyboardInterrupt: a stop took too long.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # events report all failures
    shares, slots = GpuShares(resources.gpus), SlotLimit(limit)
    context = DriverContext(queue, packs, shares, slots, stop, storage, listeners)
    places = Places()
    tuner = _tuner(_trainable(corpus, resources, storage), context, places, scratch)
    stop.may_cut(FORCE_S)
    with notices(places):
        tuner.fit()


def _tuner(
    trainable: type[RayTrial], context: DriverContext, places: Places, scratch: Path
) -> tune.Tuner:
    events = PackEvents(context)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=Suggester(context),
            scheduler=Scheduler(context.slots),
            num_samples=-1,  # as many as `Suggester` gives
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            stop=Stopper(events, places, context.stop),
            callbacks=[TuneCallback(events, places)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )


def _trainable(corpus: Corpus, resources: Resources, storage: Storage) -> type[RayTrial]:
    """Return the trainable for Tune, with what all actors share and what each pack needs."""
    cpus = resources.cpus_per_trial
    trainable: type[RayTrial] = tune.with_resources(
        tune.with_parameters(
            RayTrial,
            corpus=corpus,
            storage=storage,
            threads=max(1, int(cpus)),
            gpu=resources.gpus > 0,
        ),
        # Tune pickles this, so it can use nothing but the configuration.
        lambda config: tune.PlacementGroupFactory([{"CPU": cpus, "GPU": config["pack"]["gpus"]}]),
    )
    return trainable


class TuneResult(RayTrialResult):
    """A result with the part that is used here of what Tune adds to it."""

    config: RayTrialConfig
    node_ip: str


class RunMetadata(Protocol):
    """The part of a Tune trial's ``run_metadata`` that is used here."""

    metric_analysis: MutableMapping[str, object]
    metric_n_steps: MutableMapping[str, object]


class TuneTrial(Protocol):
    """The part of ``ray.tune.experiment.Trial`` that is used here. It carries one pack."""

    config: RayTrialConfig
    last_result: RayTrialResult  # empty before the first one
    run_metadata: RunMetadata

    def get_error(self) -> object: ...

    def get_pickled_error(self) -> object: ...


class TuneController(Protocol):
    """The private attributes of Tune's controller that `Scheduler` uses, for want of options."""

    _trials_to_cache: set[TuneTrial]
    _trial_to_actor: MutableMapping[TuneTrial, object]
    _pending_trials: set[TuneTrial]
    _pending_trials_list: list[TuneTrial]

    def _cleanup_cached_actors(self, force_all: bool) -> None: ...


class Unpickled:
    """Base class: pickles without attributes, as Tune saves its objects but none is ever loaded."""

    def __getstate__(self) -> dict[str, object]:
        return {}


class Suggester(Unpickled, tune.search.Searcher):  # type: ignore[misc]
    """Gives Tune the next pack of the queue, while there is a free slot."""

    def __init__(self, context: DriverContext) -> None:
        super().__init__()
        self._context = context

    def suggest(self, trial_id: str) -> RayTrialConfig | str | None:
        """Return the configuration of the next pack, None to be asked again, or FINISHED."""
        context = self._context
        try:
            trials = [] if context.slots.is_full else context.queue.next(context.packs)
        except context.queue.storage_errors as error:
            context.stop.request("storage", f"the search cannot be written: {error}")
            return None
        if trials:
            keys = [trial.key for trial in trials]
            context.slots.add(keys[0])
            configs = json.dumps([trial.to_dict() for trial in trials])
            return {
                "pack": {
                    "keys": keys,
                    "trials": configs,
                    "gpus": context.shares.share_of(trials[0]),
                    "report_s": 0.0 if context.queue.stops_trials else REPORT_S,
                }
            }
        finished: str = tune.search.Searcher.FINISHED
        return finished if context.queue.is_over else None

    def on_trial_complete(
        self, trial_id: str, result: RayTrialResult | None = None, error: bool = False
    ) -> None:
        """Do nothing: `TuneCallback` is called as well."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the outbox and the studies are on disk already."""


class Scheduler(Unpickled, FIFOScheduler):  # type: ignore[misc]
    """First in, first out, with idle actors ended early."""

    def __init__(self, slots: SlotLimit) -> None:
        super().__init__()
        self._slots = slots

    def choose_trial_to_run(self, tune_controller: TuneController) -> TuneTrial | None:
        """Return the trial that starts next, or None."""
        tune_controller._trials_to_cache.clear()  # else 17 KB a trial, which it writes at the end
        trial: TuneTrial | None = super().choose_trial_to_run(tune_controller)
        # Tune gives a free actor to the first pending trial, and ends the actor that starts for
        # that trial. Where trials are shorter than that start, only one actor would ever run.
        starting = tune_controller._trial_to_actor
        if trial in starting:
            others = tune_controller._pending_trials - starting.keys()
            trial = min(others, key=tune_controller._pending_trials_list.index, default=trial)
        if trial is None and self._slots.is_full:
            # An idle actor holds CPUs and a GPU, which other sweeps need now.
            tune_controller._cleanup_cached_actors(force_all=True)
        return trial


class Stopper(Unpickled, tune.Stopper):  # type: ignore[misc]
    """Records each result, and tells Tune which trials to stop."""

    def __init__(self, events: PackEvents, places: Places, stop: Stop) -> None:
        self._events = events
        self._places = places
        self._stop = stop

    def __call__(self, trial_id: str, result: TuneResult) -> bool:
        keys = result["config"]["pack"]["keys"]
        self._places.add(keys[0], result["node_ip"], len(keys))
        return self._events.on_report(result["config"]["pack"], result["report"])

    def stop_all(self) -> bool:
        """Return whether a stop of the sweep is requested."""
        return bool(self._stop.cause)


class TuneCallback(Unpickled, tune.Callback):  # type: ignore[misc]
    """Passes the other events of Tune's trials on, each of which carries a pack."""

    def __init__(self, events: PackEvents, places: Places) -> None:
        self._events = events
        self._places = places

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        self._events.on_start(trial.config["pack"])

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        self._places.lose(_name(trial))
        self._events.on_restart(trial.config["pack"])

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        self._places.discard(_name(trial))
        trial.run_metadata.metric_analysis.clear()  # 15 KB of statistics, which Tune keeps
        trial.run_metadata.metric_n_steps.clear()
        self._events.on_end(trial.config["pack"], trial.last_result.get("report"))

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        self._places.lose(_name(trial))
        error = trial.get_pickled_error() or trial.get_error() or "the worker died"
        self._events.on_drop(trial.config["pack"], str(error).strip())


def _name(trial: TuneTrial) -> str:
    """Return what a pack is known by: the key of its first trial."""
    return trial.config["pack"]["keys"][0]
