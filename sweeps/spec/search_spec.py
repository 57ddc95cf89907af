"""What the sweep file says of a search: what may be chosen, by whom, and for how long."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from sweeps.spec.passwords import Uri
from trainables.errors import brief
from trainables.settings import LARGEST, Count, Frozen

MOST_TRIALS = 100_000  # of a sweep; each has a run, and files
TRIALS = 100  # suggestions of a search that names no budget at all
MAX_STEPS = 10**15  # of a range
SCALARS = (str, int, float, bool, type(None))

SamplerName = Literal["tpe", "gp", "cmaes", "random", "qmc", "nsga2", "nsga3"]
Objective = Literal["val_loss", "parameters", "training_seconds", "training_tokens"]
Objectives = Annotated[list[Objective], Field(min_length=1)]
Rule = Literal["asha", "median", "none"]
UpToMost = Annotated[int, Field(gt=0, le=MOST_TRIALS)]


def check_seeds(given: Any) -> Any:
    """Refuse what is neither a number of seeds nor a list of different ones."""
    listed = given if isinstance(given, list) else [given]
    whole = bool(listed) and all(type(one) is int for one in listed)
    if not whole or (given is not listed and given < 1):
        raise ValueError(
            f"give a number of seeds, 1 or more, or a list of them, not {brief(given)}"
        )
    if given is not listed and given > MOST_TRIALS:
        raise ValueError(f"{given} seeds are too many; give {MOST_TRIALS:,} at most")
    if given is listed and not all(0 <= one < 2**64 for one in listed):
        raise ValueError(f"a seed must be at least 0 and below 2**64, unlike one of {brief(given)}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"a seed occurs twice in {brief(given)}")
    return given


def check_number(given: Any) -> Any:
    """Refuse what is no number, or one that no setting can have."""
    if type(given) not in (int, float) or (type(given) is float and not math.isfinite(given)):
        raise ValueError(f"give a number, not {brief(given)}")
    if type(given) is int and abs(given) > LARGEST:
        raise ValueError(f"{brief(given)} is too large: whole numbers end at 2**53")
    return given


def listed(given: Any) -> Any:
    """One value as a list of it."""
    return given if isinstance(given, list) else [given]


Number = Annotated[int | float, BeforeValidator(check_number)]
Values = Annotated[list[Any], BeforeValidator(listed)]
Replicates = Annotated[int | list[int], BeforeValidator(check_seeds)]


class Parameter(Frozen):
    """What may be chosen for a setting: one of ``choices``, or a number of a range.

    In a sweep file a plain list stands for its choices.
    """

    choices: list[Any] | None = None
    low: Number | None = None
    high: Number | None = None  # included
    log: bool = False  # equal chances for equal ratios
    step: Annotated[Number, Field(gt=0)] | None = None  # from low
    when: dict[str, Values] = Field(default_factory=dict)  # only with these values elsewhere

    @model_validator(mode="before")
    @classmethod
    def _list(cls, given: Any) -> Any:
        return {"choices": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _can_be(self) -> Parameter:
        if self.choices is not None:
            if (self.low, self.high, self.log, self.step) != (None, None, False, None):
                raise ValueError("choices and a range exclude each other; give one of them")
            if not self.choices:
                raise ValueError("the list of choices is empty; give at least one")
            odd = [one for one in self.choices if not isinstance(one, SCALARS)]
            if odd:
                raise ValueError(f"{brief(odd[0])} cannot be a choice; give words or numbers")
            if len({repr(one) for one in self.choices}) < len(self.choices):
                raise ValueError(f"a choice occurs twice in {brief(self.choices)}")
            return self
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
        return self

    def _check_step(self, low: float, high: float, step: float) -> None:
        if high - low > step * MAX_STEPS:
            raise ValueError(f"step={step} is too small for low={low} to high={high}; leave it out")
        if step == math.inf or self.highest == low:
            raise ValueError(
                f"step={step} leads from low={low} beyond high={high}, so there is one value only;"
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
        """Whether a range has whole numbers only."""
        return all(isinstance(n, int | None) for n in (self.low, self.high, self.step))

    @property
    def count(self) -> float:
        """How many values there are."""
        if self.choices is not None:
            return len(self.choices)
        assert self.low is not None
        step = self.step or (1 if self.is_whole else None)
        return round((self.highest - self.low) / step) + 1 if step else math.inf

    def value(self, place: int) -> Any:
        """One of a finite number of values, from 0."""
        if self.choices is not None:
            return self.choices[place]
        assert self.low is not None
        return min(self.low + place * (self.step or 1), self.highest)

    def draw(self, chance: random.Random) -> Any:
        """One of the values by chance."""
        if self.count < math.inf and not self.log:
            return self.value(chance.randrange(int(self.count)))
        assert self.low is not None
        if not self.log:
            return chance.uniform(self.low, self.highest)
        drawn = math.exp(chance.uniform(math.log(self.low), math.log(self.highest)))
        drawn = min(max(drawn, self.low), self.highest)
        return round(drawn) if self.is_whole else drawn


class Stopping(Frozen):
    """When a trial is hopeless. It is looked at where it is evaluated; seeds count by their mean.

    asha: at the rungs ``first_step * reduction**k``, those that are not among the best
    1/``reduction`` of all that came there are stopped (Li et al. 2020, as Optuna has it).
    median: at each evaluation from ``first_step`` on, those are stopped whose best is above the
    median that finished configurations had there (Golovin et al. 2017), once ``startup`` of them
    are finished.
    """

    rule: Rule = "asha"
    first_step: Count | None = None  # by default max_steps / reduction: earlier ranks mislead
    reduction: Annotated[int, Field(ge=2)] = 3
    startup: Count = 5


class Confirm(Frozen):
    """The best ``top`` configurations of each study are trained again, with seeds of their own."""

    top: UpToMost = 1
    replicates: Replicates = 5  # a number counts up from the last seed of the search


class SearchSpec(Frozen):
    """How the search chooses, and when it has searched enough: the first limit counts.

    Limits hold for all studies of the sweep together, but ``patience``.
    """

    sampler: SamplerName = "tpe"
    trials: UpToMost | None = None  # suggested configurations
    hours: PositiveFloat | None = None  # of searching, all runs of the command together
    patience: Count | None = None  # suggestions of a study in a row that improve nothing
    stopping: Stopping | None = None  # asha, or none where there are several objectives
    objectives: Objectives = Field(default=["val_loss"])  # all minimised
    constraints: list[str] = Field(default_factory=list)  # such as "n_embd * block_size <= 8192"
    confirm: Confirm | None = Confirm()
    storage: Uri | None = None  # a database URL of Optuna; None keeps a file beside the outbox
    warm_start: list[str] = Field(default_factory=list)  # sweeps to learn from

    @field_validator("stopping", mode="before")
    @classmethod
    def _rule(cls, given: Any) -> Any:
        return {"rule": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _can_be(self) -> SearchSpec:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"an objective occurs twice in {self.objectives}")
        if self.objectives[0] != "val_loss":
            raise ValueError(f"the first objective must be val_loss, not {self.objectives[0]}")
        if len(self.objectives) > 1:
            if self.sampler == "cmaes":
                raise ValueError("the sampler cmaes takes one objective only; use tpe")
            if self.early.rule != "none":
                raise ValueError(
                    "with several objectives no trial can be called hopeless before its end;"
                    " write `stopping: none`"
                )
        elif self.sampler in ("nsga2", "nsga3"):
            raise ValueError(f"the sampler {self.sampler} is for several objectives; use tpe")
        return self

    @property
    def early(self) -> Stopping:
        """How trials are stopped early."""
        if self.stopping is not None:
            return self.stopping
        return Stopping(rule="asha" if len(self.objectives) == 1 else "none")

    @property
    def budget(self) -> int | None:
        """Suggestions in all; None where another limit ends the search."""
        if self.trials is None and self.hours is None and self.patience is None:
            return TRIALS
        return self.trials
