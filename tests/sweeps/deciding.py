"""Sweeps that decide claims, for tests, over made-up losses: nothing is trained and no Ray runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.claims.claim_file import load_claims
from sweeps.deciding.claims import SweepClaims
from sweeps.deciding.decider import Decider
from sweeps.planning.plan import Plan
from sweeps.records.events import EvaluationValues, TrialEvent
from sweeps.records.look_log import Look
from sweeps.records.records import TRIAL, TrialRecord
from sweeps.search.queue import Queue
from sweeps.tracking.description import describe_trial
from tests.sweeps.searches import plan
from tests.sweeps.simulation import DriverDiedError, Simulation
from trainables.config import TrialConfig

STEPS = 100
SWEEP = f"""
name: made-up
corpus: file:play.txt
training: {{max_steps: {STEPS}, eval_every: {STEPS}, batch_size: 4}}
arms:
  - model: {{variant: attention, n_embd: 8}}
    grid: {{model.pe_type: [rope, sinpe, randn], training.block_size: [4, 8]}}
  - model: {{variant: bigram}}
    training: {{block_size: 8}}
decide: {{claims: study, max_seeds: 20}}
"""
CLAIMS: list[dict[str, object]] = [
    {
        "claim": "attention is better than the bigram",  # by far
        "better": {"variant": "attention"},
        "worse": {"variant": "bigram"},
        "despite": ["block_size"],
    },
    {
        "claim": "rope is better than sinpe",  # by one standard deviation of a difference
        "where": {"variant": "attention"},
        "factor": "pe_type",
        "order": ["rope", "sinpe"],
    },
    {
        "claim": "randn is better than sinpe",  # it is worse
        "where": {"variant": "attention"},
        "factor": "pe_type",
        "order": ["randn", "sinpe"],
    },
]
MEANS = {"rope": 2.30, "sinpe": 2.33, "randn": 2.38, "bigram": 2.6}  # nats
SPREAD = 0.015  # of a loss, beside the effect of the seed that all configurations share

Losses = Callable[[TrialConfig], float]


def normal(repetition: int = 0, means: Mapping[str, float] = MEANS) -> Losses:
    """Losses with known means, of the encodings and the bigram; seeds shift all of them."""

    def loss(trial: TrialConfig) -> float:
        mean = means[str(trial.flat.get("pe_type", trial.flat["variant"]))]
        shared = random.Random(f"{repetition} {trial.seed}").gauss(0, 0.05)
        return mean + shared + random.Random(f"{repetition} {trial.key}").gauss(0, SPREAD)

    return loss


KNOWN: dict[str, SweepClaims] = {}  # so that sweeps with the same trials compare them once


def claims_of(claims: Sequence[object]) -> SweepClaims:
    """Claims at an error of 5 %."""
    file = load_claims({"claims": list(claims)})
    return KNOWN.setdefault(repr(claims), SweepClaims(file, 0.05, ""))


@dataclass
class DecidedSweep:
    """A sweep whose driver may die; a later one has its trials."""

    losses: Losses
    plan: Plan = field(default_factory=lambda: plan(SWEEP))
    claims: Sequence[object] = tuple(CLAIMS)
    workers: int = 2
    fails: Callable[[TrialConfig], bool] = lambda trial: False
    events: list[TrialEvent] = field(default_factory=list)  # of all drivers
    looks: list[Look] = field(default_factory=list)  # of all drivers
    announced: dict[str, Mapping[str, str]] = field(default_factory=dict)  # tags, by key
    trials: dict[str, TrialConfig] = field(default_factory=dict)  # that were begun, by key

    def open(self) -> tuple[Decider, Queue]:
        """Open a driver, with the trials of those before it."""
        judge = claims_of(self.claims).judge
        last = self.looks[-1] if self.looks else None
        decider = Decider(
            self.plan, judge, announce=self._announce, on_look=self.looks.append, last_look=last
        )
        queue, records = Queue(decider), self.records()
        queue.put(
            trial
            for trial in self.plan.trials
            if trial.key not in records or records[trial.key].is_left(3)
        )
        decider.resume(records, self._history, queue)
        return decider, queue

    def run(self, dies_after: int | None = None) -> Decider:
        """Run a driver to its end, or until it has seen some events."""
        decider, queue = self.open()
        simulation = Simulation(queue, self._curve, self.workers, dies_after=dies_after)
        try:
            simulation.run()
        except DriverDiedError:
            simulation.events.pop()  # it died before it took this one
        self.trials |= {event.key: queue.trial(event.key) for event in simulation.events}
        self.events += simulation.events
        return decider

    def _announce(self, tagged: Sequence[tuple[TrialConfig, Mapping[str, str]]]) -> None:
        self.announced |= {trial.key: tags for trial, tags in tagged}

    def _curve(self, trial: TrialConfig) -> dict[int, float]:
        if self.fails(trial):
            raise ArithmeticError("the loss is nan")
        return {trial.training.max_steps: self.losses(trial)}

    def _history(self, key: str) -> list[EvaluationValues]:
        ended = self.statuses().get(key) == "FINISHED"
        return [{"step": 1, "val_loss": self.losses(self.trials[key])}] if ended else []

    def statuses(self) -> dict[str, str]:
        """The status of each trial that was begun, as the outbox has it after the driver died."""
        ends = {"finished": "FINISHED", "failed": "FAILED"}
        found = {event.key: "KILLED" for event in self.events}
        return found | {e.key: ends[e.kind] for e in self.events if e.kind in ends}

    def records(self) -> dict[str, TrialRecord]:
        """The records that the outbox has."""
        failures = [event.key for event in self.events if event.kind == "failed"]
        return {
            key: TrialRecord(
                key, describe_trial(self.plan, self.trials[key], self.announced.get(key)), TRIAL,
                status, "", failures.count(key), "", 0, 0, 0, 0, 0, None, 1,
            )
            for key, status in self.statuses().items()
        }  # fmt: skip

    def seeds(self) -> dict[str, int]:
        """How many trials of each configuration were begun, by encoding and block size."""
        names = [
            f"{trial.flat.get('pe_type', 'bigram')} {trial.training.block_size}"
            for trial in self.trials.values()
        ]
        return {name: names.count(name) for name in names}


def verdicts(decider: Decider) -> list[str]:
    return [conclusion.verdict for conclusion in decider.conclusions]
