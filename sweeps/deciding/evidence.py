"""The trials that claims are tested on, with their results so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from typing import Any, cast

from analysis.claims.configurations import PROVENANCE, Configuration, Run, Runs
from analysis.trials.loading import PlannedTrial, Row, planned_row, trials_of_rows
from analysis.trials.table import LARGEST, Trials
from sweeps.deciding.further import Tagged
from sweeps.planning.plan import Plan
from sweeps.tracking.description import describe_sweep, describe_trial
from trainables.config import TrialConfig

NO_SEARCH: Mapping[str, Any] = {"tags": {}, "studies": []}


class Evidence:
    """Trials of a grid and winners of a search, as `analysis` takes them: by key, not by run.

    A configuration is named by the key of its trial with the first tested seed.
    """

    def __init__(self, plan: Plan) -> None:
        """Begin without trials; the studies of a plan count as planned."""
        self._plan, self._first_seed = plan, plan.sweep.tested_seeds[0]
        about: Mapping[str, Any] = describe_sweep(plan) if plan.studies else NO_SEARCH
        self._about = {"status": "RUNNING", **about["tags"]}
        self._planned = [planned_row(trial) for trial in about["studies"]]
        self._rows: dict[str, Row] = {}  # by key, in their order
        self._configurations: dict[str, str] = {}  # by the key of each trial
        self._seeds: dict[str, int] = {}  # by the key of each trial
        self._examples: dict[str, Tagged] = {}  # by configuration
        self._siblings: dict[tuple[str, int], TrialConfig] = {}  # by configuration and seed
        self._runs: dict[str, Runs] = {}  # by configuration; a change makes another object
        self._losses: dict[str, float] = {}  # val_loss of finished trials, in nats, by key
        self._failed: set[str] = set()

    # The trials.

    def add(self, tagged: Iterable[Tagged]) -> None:
        """Add trials in any state: finished, in training or waiting. Known ones change nothing."""
        for trial, tags in tagged:
            if trial.key in self._rows:
                continue
            content = describe_trial(self._plan, trial, tags)
            row = planned_row(cast(PlannedTrial, {"key": trial.key, **content}))
            self._rows[trial.key] = {**row, "run_id": trial.key}
            configuration = trial.with_seed(self._first_seed).key
            self._configurations[trial.key] = configuration
            self._seeds[trial.key] = trial.seed
            self._examples.setdefault(configuration, (trial, tags))
            self._siblings[configuration, trial.seed] = trial
            self._keep_run(trial.key)

    def _keep_run(self, key: str) -> None:
        row, configuration = self._rows[key], self._configurations[key]
        loss = self._losses.get(key, math.nan)
        provenance = tuple(str(row.get(name) or "") for name in PROVENANCE)
        run = Run(key, loss if abs(loss) <= LARGEST else math.nan, provenance)
        known = self._runs.get(configuration, {})
        self._runs[configuration] = {**known, self._seeds[key]: run}

    def configurations(self, keys: Iterable[str]) -> list[str]:
        """Return the configurations of trials, each once."""
        return list(dict.fromkeys(self._configurations[key] for key in keys))

    def sibling(self, configuration: str, seed: int) -> TrialConfig:
        """Return the trial of a configuration with a seed."""
        if (configuration, seed) not in self._siblings:
            known, _ = self._examples[configuration]
            self._siblings[configuration, seed] = known.with_seed(seed)
        return self._siblings[configuration, seed]

    def tags(self, trial: TrialConfig) -> Mapping[str, str]:
        """Return the tags of the configuration of a trial, which need not be known itself."""
        return self._examples[trial.with_seed(self._first_seed).key][1]

    # Their results.

    def finish(self, key: str, loss: float) -> None:
        """Take the result of a trial; one whose loss is no finite number has failed."""
        if math.isfinite(loss):
            self._losses[key] = loss
            if key in self._rows:
                self._keep_run(key)
        else:
            self._failed.add(key)

    def fail(self, key: str) -> None:
        """Mark a trial as failed, which is not tried again in this run."""
        self._failed.add(key)

    def is_finished(self, trial: TrialConfig) -> bool:
        """Return whether a trial has finished, so that its val_loss is known."""
        return trial.key in self._losses

    def has_failed(self, trial: TrialConfig) -> bool:
        """Return whether a trial will have no loss in this run."""
        return trial.key in self._failed

    def is_known(self, trial: TrialConfig) -> bool:
        """Return whether a trial was added."""
        return trial.key in self._rows

    @property
    def keys(self) -> Set[str]:
        """The keys of all trials."""
        return self._rows.keys()

    @property
    def is_complete(self) -> bool:
        """True if no trial is still to be trained."""
        return self._rows.keys() <= self._losses.keys() | self._failed

    @property
    def ended(self) -> int:
        """The number of trials that have finished or failed, those of a search included."""
        return len(self._losses) + len(self._failed)

    @property
    def finished(self) -> int:
        """The number of trials that have finished, those of a search included."""
        return len(self._losses)

    # As `analysis` takes them.

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations."""
        return tuple(self._examples)

    @property
    def has_studies(self) -> bool:
        """True if winners of a search take part, so that seeds decide which trials count."""
        return bool(self._planned)

    def runs_of(self, configuration: Configuration) -> Runs:
        """Return the runs of a configuration of the trials, which may have got further seeds."""
        known = next(iter(configuration.runs.values()), None)
        return self._runs[self._configurations[known.run_id]] if known else {}

    def trials(self) -> Trials:
        """Return the table of the trials; those that have no loss yet are WAITING."""
        rows = [{**row, **self._result(key)} for key, row in self._rows.items()]
        rows = rows or self._planned  # before a search has found anything
        return trials_of_rows(self._plan.sweep.name, rows, self._about, self._planned)

    def _result(self, key: str) -> Row:
        if key in self._losses:
            return {"status": "FINISHED", "val_loss": self._losses[key]}
        return {"status": "FAILED" if key in self._failed else "WAITING"}
