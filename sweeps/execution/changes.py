"""Differences between the trials of a sweep file and those of the stored sweep of its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigram_models import VARIANTS
from sweeps.planning.plan import Plan
from sweeps.records.records import TrialRecord
from sweeps.tracking.description import describe_trial

SHOWN = 6  # values of a setting, and settings
LONGEST = 40  # characters of a value
TAGS = ("corpus_digest", "result_version")  # decide results as settings do
SAME = "of the same settings: other combinations or ranges"
SAME_OWN = "of the same settings: other combinations, ranges, or code of a model"

# What `describe_trial` returns; Any, as it is read from JSON in the outbox.
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """How many trials stay in a sweep, come to it and go from it, and which settings differ."""

    stay: int
    done: int  # of those that stay
    come: int
    go: int
    go_done: int  # of those that go: these have results
    reason: str

    def __str__(self) -> str:
        stays = f"{self.stay} trial{' stays' if self.stay == 1 else 's stay'}"
        comes = f"{self.come} {'comes' if self.come == 1 else 'come'}"
        goes = f"{self.go} {'goes' if self.go == 1 else 'go'}"
        return f"{stays}, {comes}, {goes} ({self.reason})"


def change(before: Iterable[TrialRecord], now: Mapping[str, Content], plan: Plan) -> Change:
    """Compare the trials that a sweep has with those that it should have.

    Trials that confirm a winner, and those with further seeds, are no change: they come and go with
    what they confirm or repeat.

    Args:
        before: trials of the stored sweep.
        now: trials of the plan and its search, by key.
        plan: has examples of what the search may add.
    """
    known = {r.key: r for r in before if r.key in now or not (r.is_confirming or r.is_further)}
    stay, go = known.keys() & now.keys(), known.keys() - now.keys()
    gone = [known[key].content for key in go]
    come = [now[key] for key in now.keys() - known.keys()]
    differing = _differing(
        _values([record.content for record in known.values()], plan.tuned),
        _values([*now.values(), *(describe_trial(plan, t) for t in plan.examples)], plan.tuned),
    )
    return Change(
        stay=len(stay),
        done=sum(known[key].is_done for key in stay),
        come=len(come),
        go=len(go),
        go_done=sum(known[key].is_done for key in go),
        reason="; ".join([*differing, *_edited(gone, come)]) or _same(plan),
    )


def _edited(gone: Sequence[Content], come: Sequence[Content]) -> list[str]:
    """Return the models whose code changed: trials with equal settings come and go."""
    settings = {repr(sorted(_decisive(content).items())) for content in gone}
    edited = [trial for trial in come if repr(sorted(_decisive(trial).items())) in settings]
    variants = dict.fromkeys(content["params"]["variant"] for content in edited)
    return [f"the code of {variant} changed" for variant in variants]


def _decisive(content: Content) -> Mapping[str, str | None]:
    """Return all settings that decide the result of a trial, without the code of its model."""
    return {**content["params"], **{name: content["tags"].get(name) for name in TAGS}}


def _same(plan: Plan) -> str:
    """Return the reason where no setting differs."""
    has_own = any(arm.model.get("variant") not in VARIANTS for arm in plan.sweep.arms)
    return SAME_OWN if has_own else SAME


def _differing(was: Mapping[str, list[str]], is_now: Mapping[str, list[str]]) -> list[str]:
    """Return the settings whose values differ, such as ``max_steps 5000, now 20``."""
    texts = [
        f"{name} {_shorten(was.get(name, ()))}, now {_shorten(is_now.get(name, ()))}"
        for name in {**was, **is_now}
        if {*was.get(name, ())} != {*is_now.get(name, ())}
    ]
    more = ["..."] if len(texts) > SHOWN else []
    return [*texts[:SHOWN], *more]


def _values(trials: Sequence[Content], tuned: Sequence[str]) -> dict[str, list[str]]:
    """Return the distinct values of each setting that no search chooses, in order."""
    found: dict[str, dict[str, None]] = {}
    for content in trials:
        for name, value in _decisive(content).items():
            if value is not None and name not in tuned:
                found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items()}


def _shorten(values: Sequence[str]) -> str:
    shown = [v if len(v) <= LONGEST else f"{v[: LONGEST - 3]}..." for v in values[:SHOWN]]
    more = [f"and {len(values) - SHOWN} more"] if len(values) > SHOWN else []
    return " ".join([*shown, *more]) or "none"
