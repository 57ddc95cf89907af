"""The trials with further seeds that a sweep already has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sweeps.records.records import FURTHER, TrialRecord
from trainables.config import TrialConfig

Tagged = tuple[TrialConfig, Mapping[str, str]]  # a trial with the tags of its run


def further_trials(
    tagged: Iterable[Tagged], records: Iterable[TrialRecord], is_deciding: bool
) -> Iterator[Tagged]:
    """Yield the begun trials of the same configurations with other seeds than they begin with.

    They stay part of the sweep: those that `decide` added, and while it decides also those of
    earlier runs with more replicates.

    Args:
        tagged: trials that the sweep begins with.
        records: of all trials that the outbox has, removed ones included.
        is_deciding: whether the sweep decides claims; if not, only what is done counts, of a sweep
            to which `decide` has added seeds.
    """
    records = list(records)
    has_decided = any(record.is_further and record.is_done for record in records)
    if is_deciding:
        begun = {record.key: record for record in records if record.status != "WAITING"}
    else:  # the first seeds of a sweep that decides may be more than its file says without that
        begun = {record.key: record for record in records if record.is_done and has_decided}
    if not begun:
        return
    seeds = sorted({int(record.content["tags"]["seed"]) for record in begun.values()})
    tagged = list(tagged)
    known = {trial.key for trial, _ in tagged}
    configurations = {trial.with_seed(0).key: (trial, tags) for trial, tags in tagged}
    for trial, tags in configurations.values():
        for seed in seeds:
            other = trial.with_seed(seed)
            if other.key in begun and other.key not in known:
                yield other, {**tags, **FURTHER}
