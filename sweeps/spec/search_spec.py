"""The search section of a sweep file: what is tuned, with which sampler, and for how long."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    SkipValidation,
    field_validator,
    model_validator,
)

from sweeps.spec.passwords import Uri
from trainables.errors import brief
from trainables.settings import LARGEST, Count, Frozen

MOST_TRIALS = 100_000  # of a sweep; each has a run, and files
TRIALS = 100  # suggestions of a search that names no budget at all
MAX_STEPS = 10**15  # of a range

Scalar = str | int | float | bool | None
SamplerName = Literal["tpe", "gp", "cmaes", "random", "qmc", "nsga2", "nsga3"]
Objective = Literal["val_loss", "parameters", "training_seconds", "training_tokens"]
Objectives = Annotated[list[Objective], Field(min_length=1)]
Rule = Literal["asha", "median", "none"]
UpToMost = Annotated[int, Field(gt=0, le=MOST_TRIALS)]


def check_seeds(given: object) -> int | list[int]:
    """Return a number of seeds, or a list of different ones.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, list):
        seeds = [seed for seed in given if type(seed) is int]
        if not seeds or len(seeds) < len(given):
            raise _no_seeds(given)
        if not all(0 <= seed < 2**64 for seed in seeds):
            raise ValueError(
                f"a seed must be at least 0 and below 2**64, unlike one of {brief(given)}"
            )
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"a seed occurs twice in {brief(given)}")
        return seeds
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise _no_seeds(given)
    if given > MOST_TRIALS:
        raise ValueError(f"{given} seeds are too many; give {MOST_TRIALS:,} at most")
    return given


def _no_seeds(given: object) -> ValueError:
    return ValueError(f"give a number of seeds, 1 or more, or a list of them, not {brief(given)}")


def check_number(given: object) -> int | float:
    """Return a number that a setting can have.

    Raises:
        ValueError: it is no number, not finite, or too large.
    """
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(f"give a number, not {brief(given)}")
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError(f"give a number, not {brief(given)}")
    if isinstance(given, int) and abs(given) > LARGEST:
        raise ValueError(f"{brief(given)} is too large: whole numbers end at 2**53")
    return given


def as_list(given: object) -> object:
    """Return a list as it is, and any other value as a list of it."""
    return given if isinstance(given, list) else [given]


Number = Annotated[int | float, BeforeValidator(check_number)]
Choice = SkipValidation[Scalar]  # `Parameter` checks it, with better messages
Values = Annotated[list[object], BeforeValidator(as_list)]
Replicates = Annotated[int | list[int], BeforeValidator(check_seeds)]


class Parameter(Frozen):
    """The values that a search chooses from for a setting: ``choices``, or a range of numbers.

    In a sweep file a plain list is short for ``choices``.
    """

    choices: list[Choice] | None = None
    low: Number | None = None
    high: Number | None = None  # included
    log: bool = False  # drawn uniformly on a log scale
    step: Annotated[Number, Field(gt=0)] | None = None  # from low
    when: dict[str, Values] = Field(default_factory=dict)  # only if these settings have such values

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, given: object) -> object:
        return {"choices": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        if self.choices is None:
            self._check_range()
            return self
        if (self.low, self.high, self.log, self.step) != (None, None, False, None):
            raise ValueError("choices and a range exclude each other; give one of them")
        if not self.choices:
            raise ValueError("the list of choices is empty; give at least one")
        for choice in self.choices:
            if not isinstance(choice, Scalar):
                raise ValueError(f"{brief(choice)} cannot be a choice; give words or numbers")
        if len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"a choice occurs twice in {brief(self.choices)}")
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError("give a list of choices, or low and high")
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"low={self.low} and high={self.high} are too far apart")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs low above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; give one of them")
        if self.step is not None:
            self._check_step(self.low, self.high, self.step)

    def _check_step(self, low: float, high: float, step: float) -> None:
        if high - low > step * MAX_STEPS:
            raise ValueError(f"step={step} is too small for low={low} to high={high}; leave it out")
        if step == math.inf or self.highest == low:
            raise ValueError(
                f"step={step} leads from low={low} beyond high={high}, so low is the only value;"
                " give a smaller step"
            )

    @property
    def highest(self) -> int | float:
        """The highest value of a range: ``high``, or what steps from ``low`` reach below it."""
        low, high, step = self.low, self.high, self.step
        assert low is not None
        assert high is not None
        if step is None:
            return high
        exact_low, exact_high, exact_step = (Decimal(str(number)) for number in (low, high, step))
        reached = exact_low + (exact_high - exact_low) // exact_step * exact_step
        return int(reached) if self.is_whole else float(reached)

    @property
    def is_whole(self) -> bool:
        """True if a range has whole numbers only."""
        return all(isinstance(n, int | None) for n in (self.low, self.high, self.step))

    @property
    def count(self) -> float:
        """The number of values: infinite for a range without steps."""
        if self.choices is not None:
            return len(self.choices)
        assert self.low is not None
        step = self.step or (1 if self.is_whole else None)
        return round((self.highest - self.low) / step) + 1 if step else math.inf

    def value(self, place: int) -> Scalar:
        """Return the value at a place, from 0, of finitely many values."""
        if self.choices is not None:
            return self.choices[place]
        assert self.low is not None
        return min(self.low + place * (self.step or 1), self.highest)

    def draw(self, generator: random.Random) -> Scalar:
        """Draw one of the values at random."""
        if self.count < math.inf and not self.log:
            return self.value(generator.randrange(int(self.count)))
        assert self.low is not None
        if not self.log:
            return generator.uniform(self.low, self.highest)
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.highest)))
        drawn = min(max(drawn, self.low), self.highest)
        return round(drawn) if self.is_whole else drawn


class Stopping(Frozen):
    """When a search stops a trial early. Seeds of a configuration count by their mean loss.

    asha: at the rungs ``first_step * reduction**k``, a configuration is stopped unless it is among
    the best 1/``reduction`` of all that reached the rung (Li et al. 2020, as Optuna implements it).
    median: at each evaluation from ``first_step`` on, a configuration is stopped if its best loss
    is above the median of the finished ones at that step (Golovin et al. 2017), once ``startup``
    configurations are finished.
    """

    rule: Rule = "asha"
    first_step: Count | None = None  # by default max_steps / reduction: earlier ranks mislead
    reduction: Annotated[int, Field(ge=2)] = 3
    startup: Count = 5


class Confirm(Frozen):
    """The best ``top`` configurations of each study are trained again, with new seeds."""

    top: UpToMost = 1
    replicates: Replicates = 5  # a number counts up from the last seed of the search


class SearchSpec(Frozen):
    """How a search chooses configurations, and when it ends: at the first limit that it reaches.

    All limits but ``patience`` hold for the studies of the sweep together.
    """

    sampler: SamplerName = "tpe"
    trials: UpToMost | None = None  # suggested configurations
    hours: PositiveFloat | None = None  # of searching, summed over all runs of the command
    patience: Count | None = None  # suggestions of a study in a row without an improvement
    stopping: Stopping | None = None  # asha, or none where there are several objectives
    objectives: Objectives = Field(default=["val_loss"])  # all minimised
    constraints: list[str] = Field(default_factory=list)  # such as "n_embd * block_size <= 8192"
    confirm: Confirm | None = Confirm()
    storage: Uri | None = None  # a database URL of Optuna; None keeps a file beside the outbox
    warm_start: list[str] = Field(default_factory=list)  # sweeps to learn from

    @field_validator("stopping", mode="before")
    @classmethod
    def _accept_rule(cls, given: object) -> object:
        return {"rule": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _check(self) -> SearchSpec:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"an objective occurs twice in {self.objectives}")
        if self.objectives[0] != "val_loss":
            raise ValueError(f"the first objective must be val_loss, not {self.objectives[0]}")
        if len(self.objectives) > 1:
            if self.sampler == "cmaes":
                raise ValueError("the sampler cmaes takes one objective only; use tpe")
            if self.early.rule != "none":
                raise ValueError(
                    "with several objectives no trial can be stopped early; write `stopping: none`"
                )
        elif self.sampler in ("nsga2", "nsga3"):
            raise ValueError(f"the sampler {self.sampler} is for several objectives; use tpe")
        return self

    @property
    def early(self) -> Stopping:
        """How trials are stopped early: as given, or by default."""
        if self.stopping is not None:
            return self.stopping
        return Stopping(rule="asha" if len(self.objectives) == 1 else "none")

    @property
    def budget(self) -> int | None:
        """The suggestions of all studies together; None if another limit ends the search."""
        if self.trials is None and self.hours is None and self.patience is None:
            return TRIALS
        return self.trials

    def share(self, studies: int) -> int | None:
        """Return the suggestions of each study of several, rounded up; None without a budget."""
        return math.ceil(self.budget / studies) if self.budget else None
