"""Trials that differ only in their seed, as configurations, and which of them a claim selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.claims.claim_errors import ClaimError
from analysis.trials.selection import Value, as_in
from analysis.trials.table import Trials

PROVENANCE = ("corpus_digest", "code_version", "result_version")

Settings = Mapping[str, Value | None]  # None for one that a configuration does not have
Selected = Mapping[str, Value | list[Value]]


@dataclass(frozen=True)
class Run:
    """A trial, and its loss."""

    run_id: str
    loss: float  # nats per character; NaN where it does not count
    provenance: tuple[str, ...]  # the values of PROVENANCE, empty where they are not known


Runs = Mapping[int, Run]  # by seed


@dataclass(frozen=True, eq=False)
class Configuration:
    """Trials that differ only in their seed."""

    settings: Settings  # that differ anywhere in the sweep
    runs: Runs
    second: Runs = field(default_factory=dict)  # further trials with the seed of one in `runs`


ABSENT = Configuration({}, {})


def configurations_of(trials: Trials) -> list[Configuration]:
    """Return the configurations of trials that no search suggested, in the order of settings."""
    table = trials.table[trials.table["stage"] == ""]
    if table.empty:
        return []
    names = list(trials.settings)
    number = np.zeros(len(table), dtype=int)
    if names:
        number = table.groupby(names, dropna=False).ngroup().to_numpy()
    first = table.iloc[np.unique(number, return_index=True)[1]]
    values = first[names].astype(object).where(first[names].notna(), None).to_dict("records")
    runs: list[dict[int, Run]] = [{} for _ in values]
    second: list[dict[int, Run]] = [{} for _ in values]
    for which, seed, run in zip(number, table["seed"], _runs(trials, table), strict=True):
        kept = second if seed in runs[which] else runs
        kept[which][seed] = run
    settings = [{str(name): value for name, value in each.items()} for each in values]
    return [Configuration(*each) for each in zip(settings, runs, second, strict=True)]


def _runs(trials: Trials, table: pd.DataFrame) -> list[Run]:
    losses = trials.comparable["val_loss"].reindex(table.index)  # NaN for what is left out
    known = table.reindex(columns=list(PROVENANCE)).astype(object)
    provenance = map(tuple, known.where(known.notna(), "").astype(str).to_numpy())
    return [Run(*each) for each in zip(table["run_id"], losses, provenance, strict=True)]


def select_configurations(
    trials: Trials, found: Sequence[Configuration], selection: Selected
) -> list[Configuration]:
    """Return the configurations with these settings; if seeds are selected, with only those.

    Args:
        trials: that the configurations are of.
        found: the configurations.
        selection: values of settings that some trial has.
    """
    for name, value in selection.items():
        column, values = trials.table[name], value if isinstance(value, list) else [value]
        wanted = {as_in(column, each) for each in values}
        if name == "seed":
            parts = [_with_seeds(each, wanted) for each in found]
            found = [each for each in parts if each.runs]
        elif name in trials.settings:  # else all trials have the same value
            found = [each for each in found if each.settings[name] in wanted]
    return list(found)


def _with_seeds(configuration: Configuration, seeds: set[Value]) -> Configuration:
    runs, second = (
        {seed: run for seed, run in some.items() if seed in seeds}
        for some in (configuration.runs, configuration.second)
    )
    return replace(configuration, runs=runs, second=second)


def check_seeds(found: Sequence[Configuration]) -> None:
    """Refuse configurations with two trials of a seed.

    Raises:
        ClaimError: one has.
    """
    for configuration in found:
        for seed, other in configuration.second.items():
            run = configuration.runs[seed]
            both = zip(PROVENANCE, run.provenance, other.provenance, strict=True)
            differ = [name for name, ours, theirs in both if ours != theirs]
            settings = label(configuration.settings) or "the same settings"
            raise ClaimError(
                f"several trials with seed {seed} have {settings}; they differ in"
                f" {', '.join(differ) or 'nothing'}: only one of them can count"
            )


def seeds_of(found: Sequence[Configuration]) -> list[int]:
    """Return the seeds that some configuration has."""
    return sorted(set().union(*(each.runs for each in found)))


def label(settings: Settings) -> str:
    """Return the settings that are not missing, such as "n_embd=64 block_size=8"."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def varying(found: Sequence[Configuration]) -> list[str]:
    """Return the settings in which some configurations differ."""
    return [name for name in found[0].settings if differ(found, name)] if found else []


def differ(found: Sequence[Configuration], name: str) -> bool:
    """Return whether configurations have several values of a setting, or some have none.

    Those without any settings, which are missing, do not count.
    """
    return len({each.settings.get(name) for each in found if each.settings}) > 1
