"""Let a study learn from trials that it did not suggest, as if it had.

A trial of an earlier sweep counts if a parameter of the study can have each of its values; so does
a trial of this sweep whose suggestion the storage has lost.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TypeVar

from optuna.distributions import CategoricalChoiceType

from sweeps.planning.study_spec import ARM, SearchedArm
from sweeps.records.outbox import Outbox
from sweeps.search.study import Study
from sweeps.search.study_space import RejectedError
from sweeps.search.suggestion import Suggestion
from sweeps.search.warm_start import Observation, from_outbox, unknown_in_outbox
from trainables.config import canonical

ROUNDING = 1e-8  # of a number of steps
Number = TypeVar("Number", int, float)
Params = Mapping[str, object]  # by the names of the study's parameters


def learn(study: Study, observations: Mapping[str, Observation]) -> int:
    """Add finished trials to a study, whose sampler learns from them; each configuration once.

    Args:
        study: that learns.
        observations: by key; a configuration counts if all its seeds are there.

    Returns:
        How many configurations were new.
    """
    learnt = 0
    for known, params in _replayed(study, observations):
        _replay(study, known, params, [observations[key] for key in known.keys])
        learnt += 1
    return learnt


def restore(study: Study, observations: Mapping[str, Observation]) -> int:
    """Suggest configurations of this sweep again that the storage lost; `Search.resume` continues.

    Args:
        study: that lost them.
        observations: by key; a configuration counts if all its seeds are there.

    Returns:
        How many there were.
    """
    restored = 0
    for known, params in _replayed(study, observations):
        study.ask_again(known, params)
        restored += 1
    return restored


def learn_again(studies: Sequence[Study], taken: Container[str], outbox: Outbox) -> int:
    """Give studies what the outbox has of their sweep and they lack.

    They learn from configurations that are done, and suggest those again that are not.

    Args:
        studies: of the sweep.
        taken: the keys of the trials that they know, which grows with them.
        outbox: of the sweep.

    Returns:
        How many configurations they lacked.
    """
    done = from_outbox(outbox, taken)
    lacked = sum(learn(study, done) for study in studies)
    others = unknown_in_outbox(outbox, taken)
    return lacked + sum(restore(study, others) for study in studies)


def _replayed(
    study: Study, observations: Mapping[str, Observation]
) -> Iterator[tuple[Suggestion, Params]]:
    """Yield the configurations among observations that a study may suggest, with their values."""
    for observation in observations.values():
        for arm in study.space.spec.arms:
            if not observation.is_of(arm):
                continue
            trial = ReplayedTrial(arm, observation)
            try:
                known = study.space.configure_new(0, trial)
            except RejectedError:
                continue
            if observation.key in known.keys and observations.keys() >= set(known.keys):
                yield known, trial.params


def _replay(
    study: Study, known: Suggestion, params: Params, observations: Sequence[Observation]
) -> None:
    """Let a configuration pass its rungs and end as its trials, one for each seed, did."""
    suggestion = study.ask_again(known, params, observations[0].sweep)
    for observation in observations:
        for evaluation in observation.evaluations:
            suggestion.on_evaluation(observation.key, evaluation)
    while suggestion.reached_rung is not None:
        study.should_prune(suggestion)
    if reason := next((seen.stopped for seen in observations if seen.stopped), ""):
        study.pruned(suggestion, reason)
    else:
        study.finished(suggestion)


class ReplayedTrial:
    """A trial whose parameters have the values that an observed one had.

    The methods are those of `optuna.Trial`; they raise `ValueError` for values out of range.
    """

    def __init__(self, arm: SearchedArm, observation: Observation) -> None:
        self.params: dict[str, object] = {}  # by the names of the study's parameters
        self._arm = arm.label
        self._settings = observation.settings

    def suggest_categorical(
        self, name: str, choices: Sequence[CategoricalChoiceType], /
    ) -> CategoricalChoiceType:
        value: CategoricalChoiceType = self._arm
        if name != ARM:
            text = self._text(name)
            value = next((choice for choice in choices if canonical(choice) == text), None)
        self.params[name] = value
        return value

    def suggest_int(
        self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False
    ) -> int:
        return self._in_range(name, int(self._text(name)), low, high, step)

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        /,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float:
        return self._in_range(name, float(self._text(name)), low, high, step)

    def _in_range(
        self, name: str, value: Number, low: Number, high: Number, step: Number | None
    ) -> Number:
        steps = (value - low) / step if step else 0.0
        if not low <= value <= high or abs(steps - round(steps)) > ROUNDING:
            raise ValueError(f"{name}={value} is not in the range")
        self.params[name] = value
        return value

    def _text(self, name: str) -> str:
        return self._settings.get(name.partition(" of ")[0], "")
