"""What earlier sweeps tell of the claims of a sweep that has no finished trials itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from sweeps.deciding.claims import SweepClaims
from sweeps.deciding.evidence import Evidence
from sweeps.deciding.expected import wanted_trials
from sweeps.deciding.outlook import Outlook
from sweeps.deciding.results import verdicts_in_words
from sweeps.deciding.steps import open_pairs
from sweeps.planning.plan import Plan
from sweeps.records.outbox_reader import opened_reader


def pilot(plan: Plan, claims: SweepClaims, outboxes: Mapping[str, Path]) -> Outlook | None:
    """Forecast from finished trials of other sweeps that have the same configurations.

    Their seeds may be others than those of the plan: each stands for one of these, in their order.

    Args:
        plan: of the sweep.
        claims: that it decides.
        outboxes: of other sweeps, by their names.

    Returns:
        The further trials are those besides the first ones of the plan. None if no other sweep
        has a finished trial of a configuration of the plan.
    """
    losses: dict[tuple[str, int], float] = {}  # by configuration and seed
    used = []
    for name, path in outboxes.items():
        found = dict(_losses(plan, path))
        if found:
            used.append(name)
            losses |= found
    if not losses:
        return None
    seeds = plan.sweep.tested_seeds
    stands_for = dict(zip(sorted({seed for _, seed in losses}), seeds, strict=False))
    evidence = Evidence(plan)
    evidence.add((trial, {}) for trial in plan.trials)
    for (configuration, seed), loss in losses.items():
        if seed in stands_for:
            trial = evidence.sibling(configuration, stands_for[seed])
            evidence.add([(trial, {})])
            evidence.finish(trial.key, loss)
    conclusions = claims.judge(evidence)
    wanted = wanted_trials(conclusions, open_pairs(conclusions, evidence), evidence, seeds)
    further = {trial.key for trial in wanted} - {trial.key for trial in plan.trials}
    most = plan.sweep.decide.trials if plan.sweep.decide else None
    left = len(further) if most is None else min(len(further), most - len(plan.trials))
    return Outlook(verdicts_in_words(conclusions), left, tuple(used))


def _losses(plan: Plan, path: Path) -> Iterator[tuple[tuple[str, int], float]]:
    """Yield the last val_loss of each finished trial of an outbox whose configuration is planned.

    Nothing of an outbox that cannot be read.
    """
    first = plan.sweep.tested_seeds[0]
    configurations = {trial.with_seed(first).key: trial for trial in plan.trials}
    try:
        with opened_reader(path) as outbox:
            trials = [*outbox.removed_trials(), *outbox.trials()]
            finished = {trial.key for trial in trials if trial.status == "FINISHED"}
            seeds = sorted({int(trial.content["tags"]["seed"]) for trial in trials})
            for configuration, trial in configurations.items():
                for seed in seeds:
                    if (key := trial.with_seed(seed).key) in finished:
                        last = max(outbox.history(key), key=lambda each: each["step"])
                        yield (configuration, seed), last["val_loss"]
    except (sqlite3.Error, ValueError, KeyError):
        return
