"""A study as Optuna's storage has it, with what we keep in the attributes of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.search.samplers import experimental

REJECTED = "rejected"  # attributes of trials: why a suggestion was not trained
FROM = "from"  # the sweep that a trial was learnt from, if this study did not suggest it
ENDED = "ended"  # why a configuration was pruned, or failed
EXHAUSTED = "exhausted"  # attributes of the study: the constraints that leave nothing new
SEARCHED_S = "searched_s"  # seconds


class StoredStudy:
    """An Optuna study. Each of its trials is a configuration, whatever its number of seeds."""

    def __init__(
        self, name: str, storage: BaseStorage, objectives: Sequence[str], pruner: BasePruner
    ) -> None:
        """Open the study, or create it if the storage has none of this name."""
        self.name = name
        self._storage = storage
        self._handles: dict[int, optuna.Trial] = {}  # by number
        self._optuna = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            pruner=pruner,
            directions=["minimize"] * len(objectives),
        )
        if not self._optuna.metric_names:
            with experimental():
                self._optuna.set_metric_names(list(objectives))

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number, which are not to be changed."""
        return self._optuna.get_trials(deepcopy=False)

    @property
    def front(self) -> list[FrozenTrial]:
        """The trials on the Pareto front of several objectives."""
        return self._optuna.best_trials

    def has_others(self, beginning: str) -> bool:
        """Return whether the storage has another study whose name begins so."""
        names = optuna.get_all_study_names(self._storage)
        return any(name.startswith(beginning) and name != self.name for name in names)

    # From a suggestion to its end.

    def ask(self, sampler: BaseSampler) -> optuna.Trial:
        """Begin a trial whose values the sampler chooses."""
        self._optuna.sampler = sampler
        trial = self._optuna.ask()
        self._handles[trial.number] = trial
        return trial

    def ask_again(self, params: Mapping[str, object], sweep: str | None) -> optuna.Trial:
        """Begin a trial with known values, learnt from another sweep if that is given."""
        with experimental():
            sampler = PartialFixedSampler(dict(params), RandomSampler(0))
        trial = self.ask(sampler)
        if sweep is not None:
            trial.set_user_attr(FROM, sweep)
        return trial

    def reject(self, number: int, reason: str) -> None:
        """End a trial that is not trained."""
        self._trial(number).set_user_attr(REJECTED, reason)
        self._optuna.tell(number, state=TrialState.FAIL)
        del self._handles[number]

    def should_prune(self, number: int, step: int, loss: float) -> bool:
        """Report the loss of a trial at a step, and return whether the pruner would end it."""
        trial = self._trial(number)
        trial.report(loss, step)
        return trial.should_prune()

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial that was trained to its last step, with the values of its objectives."""
        self._optuna.tell(number, values)

    def end(self, number: int, state: TrialState, reason: str) -> None:
        """End a trial that was pruned or failed."""
        self._trial(number).set_user_attr(ENDED, reason)
        self._optuna.tell(number, state=state)

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._handles:  # of an earlier process
            trial_id = self.trials[number]._trial_id
            self._handles[number] = optuna.Trial(self._optuna, trial_id)
        return self._handles[number]

    # What holds for the study.

    def is_exhausted(self, constraints: Sequence[str]) -> bool:
        """Return whether the sampler found no new configuration under these constraints before."""
        return bool(self._optuna.user_attrs.get(EXHAUSTED) == constraints)

    def set_exhausted(self, constraints: Sequence[str]) -> None:
        """Save the constraints under which the sampler found no new configuration."""
        self._optuna.set_user_attr(EXHAUSTED, constraints)

    @property
    def searched_s(self) -> float:
        """Seconds of searching by all studies of the sweep, if this is the first of them."""
        return float(self._optuna.user_attrs.get(SEARCHED_S, 0))

    @searched_s.setter
    def searched_s(self, seconds: float) -> None:
        self._optuna.set_user_attr(SEARCHED_S, seconds)
