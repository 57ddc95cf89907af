"""The Ray adapter: one pack of trials in one actor. No training logic here, no Ray in the loop."""

from __future__ import annotations

import json
import time
from typing import TypedDict

import ray
from ray import tune

from trainables.data.corpus import Corpus
from trainables.persistence.storage import Storage
from trainables.worker.reports import PackConfig, WorkerReport
from trainables.worker.worker import Worker

STEP_S = 2.0  # how long a call of `step` trains: a sweep that stops waits for it
LOOK_S = 1.0  # how often a worker asks whether Ray drains its machine


class RayTrialConfig(TypedDict):
    """The ``config`` of a Tune trial."""

    pack: PackConfig


class RayTrialResult(TypedDict):
    """A result of a Tune trial, without what Tune adds to it."""

    report: WorkerReport
    done: bool  # of the report: Tune ends a trial by it


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """Trains a pack of trials to their next evaluation, or for some seconds, at each step.

    Tune's own checkpoints are not used: the state of a trial is stored under its key, so that any
    actor, and any later run of Tune, can resume it.
    """

    def setup(
        self, config: RayTrialConfig, corpus: Corpus, storage: Storage, threads: int, gpu: bool
    ) -> None:
        """Prepare what all packs of an actor share; ``corpus`` maps the node's one copy.

        Raises:
            StorageError: this machine does not see the storage.
        """
        self.looked_s = time.monotonic()
        self.node = ray.get_runtime_context().get_node_id()
        storage.assert_seen()
        self.worker = Worker(corpus, storage, threads, gpu)
        self.reset_config(config)

    def reset_config(self, new_config: RayTrialConfig) -> bool:
        """Train another pack: Tune calls this to reuse an actor."""
        self.is_new = True
        self.report_s = new_config["pack"]["report_s"]
        self.worker.assign(json.loads(new_config["pack"]["trials"]))
        return True

    def step(self) -> RayTrialResult:
        """Train for a while, and return the worker's report.

        If Ray drains this machine, save the trials and end the actor: Tune starts them elsewhere.
        """
        if self.must_leave():
            self.cleanup()
            ray.actor.exit_actor()
        until_s = time.monotonic() + self.report_s
        report = self.worker.advance(STEP_S)
        # That trials start takes no call of its own. Evaluations before which they resume do: the
        # driver, if it has not seen them yet, may stop a trial by them.
        starts, self.is_new = self.is_new and not report.has_evaluations, False
        while not report.done and (starts or time.monotonic() < until_s):
            starts = False
            report = report.followed_by(self.worker.advance(STEP_S))
        return {"report": report, "done": report.done}

    def must_leave(self) -> bool:
        """Return whether Ray drains this machine, such as a spot instance that is reclaimed."""
        if time.monotonic() - self.looked_s < LOOK_S:
            return False
        self.looked_s = time.monotonic()
        return self.node in ray._private.state.state.get_draining_nodes()  # as Ray Train does

    def cleanup(self) -> None:
        """Save the unfinished trials; Tune calls this when it stops an actor."""
        self.worker.pause()
