"""The Ray adapter: one pack of trials in one actor. No training logic here, no Ray in the loop."""

from __future__ import annotations

import json
import time
from typing import Any

import ray
from ray import tune

from trainables.data.corpus import Corpus
from trainables.persistence.storage import Storage
from trainables.worker.worker import Worker

STEP_S = 2.0  # how long a call of `step` trains: a sweep that is to stop waits for it
LOOK_S = 1.0  # how often a worker asks whether its machine is about to leave


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """Carries trials from one evaluation to the next, or for some seconds of training.

    Tune's own checkpoints are not used: the state of a trial lies under its key, so that it goes on
    whichever actor, or run of Tune, carries it.
    """

    def setup(
        self, config: dict[str, Any], corpus: Corpus, storage: Storage, threads: int, gpu: bool
    ) -> None:
        """Take what all trials of an actor share; ``corpus`` maps the node's one copy."""
        self.looked_s = time.monotonic()
        self.node = ray.get_runtime_context().get_node_id()
        storage.assert_seen()
        self.worker = Worker(corpus, storage, threads, gpu)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to other trials: Tune reuses actors by this."""
        self.is_new = True
        self.worker.take(json.loads(new_config["carried"]["trials"]))
        return True

    def step(self) -> dict[str, Any]:
        """Train for a while, and report as `Worker.advance` does.

        Where the machine is about to leave the cluster, the trials are saved and this worker ends:
        Tune takes them elsewhere.
        """
        if self.must_leave():
            self.cleanup()
            ray.actor.exit_actor()
        report = self.worker.advance(STEP_S)
        if self.is_new and not report["done"]:  # where they stand takes no call of its own
            told = report["trials"]
            report = self.worker.advance(STEP_S)
            report["trials"] = told + report["trials"]
        self.is_new = False
        return report

    def must_leave(self) -> bool:
        """Whether Ray was told that this machine goes, such as a spot instance."""
        if time.monotonic() - self.looked_s < LOOK_S:
            return False
        self.looked_s = time.monotonic()
        return self.node in ray._private.state.state.get_draining_nodes()  # as Ray Train does

    def cleanup(self) -> None:
        """Save trials that are left before their end; Tune calls this when it stops an actor."""
        self.worker.leave()
