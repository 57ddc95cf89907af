"""The plan of a sweep: its trials, its studies, and how many trials there will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sweeps.planning.costs import count_parameters, training_tokens
from sweeps.planning.run_names import RunNames, varying_settings
from sweeps.planning.study_spec import StudySpec, short_name
from sweeps.spec.search_spec import Parameter
from sweeps.spec.sweep_file import SweepFile
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus


@dataclass(frozen=True)
class Plan:
    """A sweep with its corpus and its trials, all valid and all different.

    ``trials`` are those of the grid. The search of its ``studies`` adds others when it runs;
    ``examples`` are some valid trials of each study. ``sizes`` has the number of configurations of
    the studies that have fewer than their share of the budget.
    """

    sweep: SweepFile
    corpus: Corpus
    trials: tuple[TrialConfig, ...]
    studies: tuple[StudySpec, ...] = ()
    examples: tuple[TrialConfig, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)  # of studies that will run out, by label
    arm_indices: Mapping[str, int] = field(default_factory=dict)  # of trials and examples, by key
    command: str = ""  # that runs this sweep again
    warnings: tuple[str, ...] = ()  # for the user before training, a line each

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The settings that differ between trials, those with text values first."""
        return varying_settings((*self.trials, *self.examples))

    @cached_property
    def names(self) -> RunNames:
        """Names and kinds of the runs."""
        return RunNames((*self.trials, *self.examples), self.varying, self.spaces)

    @property
    def spaces(self) -> list[Mapping[str, Parameter]]:
        """What the search chooses, for each arm of each study, by dotted path."""
        return [arm.space for study in self.studies for arm in study.arms]

    @property
    def tuned(self) -> tuple[str, ...]:
        """The settings that a search chooses, by short names."""
        return tuple(dict.fromkeys(short_name(path) for space in self.spaces for path in space))

    @property
    def shortened(self) -> dict[str, Parameter]:
        """The ranges whose steps do not reach their high end, by short names."""
        ranges = {
            short_name(path): parameter
            for space in self.spaces
            for path, parameter in space.items()
            if not parameter.choices
        }
        return {name: found for name, found in ranges.items() if found.highest != found.high}

    @property
    def share(self) -> int | None:
        """Suggestions of each study, rounded up; None where no number limits the search."""
        return self.sweep.search.share(len(self.studies))

    @property
    def suggestions(self) -> int | None:
        """The most configurations that the search suggests; None where no number limits them."""
        budget = self.sweep.search.budget if self.studies else 0
        if len(self.sizes) == len(self.studies):  # all will run out
            most = sum(self.sizes.values())
            budget = most if budget is None else min(most, budget)
        return budget

    @property
    def confirming(self) -> int:
        """The most trials that confirm the winners of the studies."""
        confirm = self.sweep.search.confirm
        winners = len(self.studies) * confirm.top if confirm else 0
        return winners * len(self.sweep.confirm_seeds)

    @property
    def to_come(self) -> int | None:
        """The most trials that the search adds; None where no number limits them."""
        if self.suggestions is None:
            return None
        return self.suggestions * len(self.sweep.seeds) + self.confirming

    @property
    def costs(self) -> dict[str, Callable[[TrialConfig], float]]:
        """The objectives of the search that are known before a trial is trained."""
        known: dict[str, Callable[[TrialConfig], float]] = {
            "parameters": lambda trial: count_parameters(trial, self.corpus.vocab_size),
            "training_tokens": training_tokens,
        }
        wanted = self.sweep.search.objectives if self.studies else []
        return {name: known[name] for name in wanted if name in known}
