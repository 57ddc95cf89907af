"""Timings of earlier trials on this machine, read from the outboxes of the state directory."""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sweeps.records.outbox_file import opened_to_read
from sweeps.records.state import State
from trainables.config import EvaluatingTrain, TrialConfig, canonical
from trainables.training.timing import one_thread
from trainables.worker.worker import hardware_tag

MOST_READ = 2_000  # trials of a sweep, the newest ones
FREE = {  # settings that change neither the time of a step nor that of an evaluation
    "corpus",
    "eval_every",
    "learning_rate",
    "max_steps",
    "schedule",
    "seed",
    "warmup_steps",
}
QUERY = """
SELECT trials.key, trials.content, evaluations.step, evaluations.time_ms,
    json_extract(evaluations.content, '$.training_s'),
    coalesce(json_extract(evaluations.content, '$.train_part'), 'exact')
FROM (
    SELECT key, content FROM trials WHERE hardware = ? AND status IN ('FINISHED', 'STOPPED')
    ORDER BY latest_ms DESC LIMIT ?
) AS trials JOIN evaluations ON evaluations.key = trials.key
ORDER BY trials.key, evaluations.step
"""


@dataclass(frozen=True)
class StepTiming:
    """Median times of the trials of one shape."""

    step_s: float  # of an update
    # Of an evaluation, its checkpoint and its report, by the part of the training split.
    evaluation_s: Mapping[EvaluatingTrain, float]


@dataclass(frozen=True)
class EarlierTimings:
    """Timings of earlier trials, by shape."""

    timings: Mapping[str, StepTiming] = field(default_factory=dict)

    def of(self, trial: TrialConfig) -> StepTiming | None:
        """Return the timing of trials of the same shape, or None if there were none."""
        if ":" in trial.model.variant:  # a user's own model, whose code may have changed
            return None
        params = {name: canonical(value) for name, value in trial.flat.items()}
        return self.timings.get(_shape(params, trial.corpus_digest))


def earlier_timings(state: State) -> EarlierTimings:
    """Read the timings of all sweeps in a state directory; damaged outboxes are skipped.

    Only trials with two or more evaluations count: the time between two of them, without the
    training steps, is the time of an evaluation.
    """
    with one_thread():
        here = hardware_tag(torch.device("cpu"))
    steps: dict[str, list[float]] = defaultdict(list)
    evaluations: dict[str, dict[EvaluatingTrain, list[float]]] = defaultdict(dict)
    for path in state.outboxes.values():
        try:
            found = list(_read(path, here))
        except (sqlite3.Error, ValueError, LookupError):
            continue
        for shape, timing in found:
            steps[shape].append(timing.step_s)
            for part, seconds in timing.evaluation_s.items():
                evaluations[shape].setdefault(part, []).append(seconds)
    return EarlierTimings(
        {
            shape: StepTiming(statistics.median(times), _medians(evaluations[shape]))
            for shape, times in steps.items()
        }
    )


def _medians(
    seconds: Mapping[EvaluatingTrain, Sequence[float]],
) -> dict[EvaluatingTrain, float]:
    return {part: max(0.0, statistics.median(times)) for part, times in seconds.items()}


def _read(path: Path, here: str) -> Iterator[tuple[str, StepTiming]]:
    """Yield the shape of each trial and its timing."""
    with opened_to_read(path) as database:
        rows = database.execute(QUERY, (here, MOST_READ)).fetchall()
    for _, of_trial in itertools.groupby(rows, key=lambda row: row[0]):
        evaluations = list(of_trial)
        evaluations_s: dict[EvaluatingTrain, list[float]] = defaultdict(list)
        for before, after in itertools.pairwise(evaluations):
            seconds = (after[3] - before[3]) / 1e3 - (after[4] - before[4])
            evaluations_s[after[5]].append(seconds)
        step, training_s = evaluations[-1][2], evaluations[-1][4]
        if step and evaluations_s:
            content = json.loads(evaluations[0][1])
            shape = _shape(content["params"], content["tags"]["corpus_digest"])
            yield shape, StepTiming(training_s / step, _medians(evaluations_s))


def _shape(params: Mapping[str, str], corpus_digest: str) -> str:
    """Return a text that is equal for trials whose steps and evaluations cost the same."""
    deciding = {name: value for name, value in params.items() if name not in FREE}
    return repr((corpus_digest, sorted(deciding.items())))
