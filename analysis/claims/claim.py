"""Claims about val_loss, in forms that trials can support or contradict.

Lower is better. Two trials are compared if their seed and all their settings agree, except those
that the claim is about, those that `despite` names, and those that only one of the two has.
`analysis.claims.forms` has the forms; docs/claims.md shows each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from analysis.claims.configurations import Configuration
from analysis.claims.contrast import Comparison, Contrast
from analysis.claims.one_sided import OneSided
from analysis.claims.power import Chance, Level, chance_of_difference
from analysis.claims.procedures import Procedure
from analysis.trials.selection import Value
from analysis.trials.table import Trials

Selection = dict[str, Value | Annotated[list[Value], Field(min_length=1)]]
Scope = Literal["in every cell", "not in every cell", "on average"]

NEGATED: Scope = "not in every cell"
MARGIN = 0.002  # nats per character
PAIRED_BY_SEED = "trials are paired by their seed: it is neither compared nor open"

KeyPath = tuple[str | int, ...]  # keys and indices


class Claim(BaseModel, ABC):
    """A statement about losses; each form is a subclass.

    A form defines which trials it compares, which tests of the differences support or contradict
    the claim, the claim in words, and the forecast for more seeds. By default a difference below
    zero supports the claim: the first configuration is better than the second.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    keys: ClassVar[tuple[str, ...]]  # of a claim in this form, and in no other
    is_simulated: ClassVar[bool] = False  # True if `chance` simulates sweeps, which takes its time

    claim: Annotated[str, Field(min_length=1)]
    where: Selection = Field(default_factory=dict)
    despite: list[str] = Field(default_factory=list)
    holds: Scope = "in every cell"
    margin: Annotated[float, Field(gt=0)] = MARGIN

    @model_validator(mode="after")
    def _settings_differ(self) -> Claim:
        if "seed" in self.despite:
            raise ValueError(PAIRED_BY_SEED)
        if same := sorted(self.compared & set(self.despite)):
            raise ValueError(f"{same[0]!r} is compared, so it differs anyway: not in `despite`")
        return self

    # Which trials it compares.

    @property
    @abstractmethod
    def compared(self) -> set[str]:
        """Settings that the claim is about: the compared trials differ in them."""

    @abstractmethod
    def compare(self, trials: Trials, found: Sequence[Configuration]) -> Iterator[Comparison]:
        """Return which configurations are compared, cell by cell; losses make no difference.

        Args:
            trials: all of them.
            found: the configurations that the claim is about.

        Raises:
            ClaimError: the trials cannot be compared so.
        """

    @abstractmethod
    def sides(self, trials: Trials, found: Sequence[Configuration]) -> list[list[Configuration]]:
        """Return groups of configurations whose losses may have been rounded in different ways."""

    @property
    def selections(self) -> dict[str, Selection]:
        """Selections of trials, by their key in the claim."""
        return {"where": self.where}

    @property
    def names(self) -> dict[str, KeyPath]:
        """The settings that the claim compares and selects by, and where it names them."""
        return {
            name: (key, name) for key, selection in self.selections.items() for name in selection
        }

    @property
    def values(self) -> list[tuple[KeyPath, str, Value]]:
        """Values that some trial should have: where the claim names it, the setting, the value."""
        return [
            ((key, name), name, value)
            for key, selection in self.selections.items()
            for name, values in selection.items()
            for value in listed_values(values)
        ]

    def check(self, contrasts: Sequence[Contrast]) -> None:
        """Refuse contrasts that cannot decide the claim.

        Raises:
            ClaimError: they cannot.
        """

    def alternatives(self, contrasts: Sequence[Contrast]) -> list[list[Contrast]]:
        """Return groups of contrasts if one group is enough for the claim; none if it needs all."""
        return []

    # How it is tested.

    def tests_for(self, contrast: Contrast) -> list[OneSided]:
        """Return the tests that all have to reject for a contrast to support the claim.

        Each allows for the rounding of the losses.
        """
        return [OneSided(1, contrast.rounding)]

    def tests_against(self, contrast: Contrast) -> list[OneSided]:
        """Return the tests of which one has to reject for a contrast to contradict the claim.

        A difference that is better by less than the margin contradicts the claim. If the claim is
        `not in every cell`, only a difference of the other sign does.
        """
        margin = 0.0 if self.holds == NEGATED else self.margin
        return [OneSided(-1, contrast.rounding - margin)]

    def further_p_value(self, contrast: Contrast, procedure: Procedure) -> float:
        """Return the p-value of a further test that has to reject; 0 if there is none."""
        return 0.0

    def distance(self, contrast: Contrast) -> float:
        """Return how far a mean difference is from supporting the claim; negative if it does."""
        return contrast.mean

    def chance(self, contrast: Contrast, seeds: int, level: Level) -> Chance:
        """Forecast the verdict on a contrast with `seeds` seeds, from its mean and spread."""
        return chance_of_difference(
            contrast, self.tests_for(contrast), self.tests_against(contrast), seeds, level
        )

    # The claim in words.

    @property
    def favoured(self) -> str:
        """Which differences support the claim: "negative", "positive" or "small"."""
        return "positive" if self.holds == NEGATED else "negative"

    def statement(self, lowest_first: Sequence[Value | None], is_shown: bool) -> str:
        """Return the claim in words; for `best: any`, with the level that is best.

        Args:
            lowest_first: for `best: any`, the levels by mean loss; else empty.
            is_shown: whether the first of these is shown to be best.
        """
        return self.claim

    def choice(self, lowest_first: Sequence[Value | None], confidence: float) -> str:
        """Return a sentence on how `best: any` chose its level; empty for other claims."""
        return ""


def listed_values(value: Value | list[Value] | None) -> list[Value]:
    """Return a value or several as a list; an empty one for None."""
    return [] if value is None else value if isinstance(value, list) else [value]
