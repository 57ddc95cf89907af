"""Base of the forms with a factor: they compare levels of one setting, all others held fixed."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, model_validator

from analysis.claims.claim import PAIRED_BY_SEED, Claim, KeyPath
from analysis.claims.claim_errors import ClaimError, ConfoundedError
from analysis.claims.configurations import (
    ABSENT,
    Configuration,
    check_seeds,
    differ,
    label,
    seeds_of,
)
from analysis.claims.contrast import DIFFERENCE, Comparison
from analysis.claims.pairing import differ_in
from analysis.statistics import Floats
from analysis.trials.selection import Value, as_in
from analysis.trials.table import Trials

Levels = Annotated[list[Value], Field(min_length=2, max_length=100)]  # `equal` compares all pairs
Direction = Literal["falling", "rising"]
Cell = dict[Value | None, Configuration]  # by level


@dataclass(frozen=True)
class LevelComparison:
    """Levels of a factor to compare in each cell."""

    what: str
    levels: Sequence[Value]
    weights: Floats  # of the losses of the levels
    candidate: Value | None = None  # `best: any`: the level that is tested as the best one


def pair(better: Value, worse: Value, candidate: Value | None = None) -> LevelComparison:
    """Compare two levels: one minus the other."""
    return LevelComparison(f"{better} - {worse}", (better, worse), DIFFERENCE, candidate)


class FactorClaim(Claim):
    """A claim about levels of a factor."""

    factor: str

    @model_validator(mode="after")
    def _levels_differ(self) -> FactorClaim:
        for levels in self.levels_by_key.values():
            texts = list(map(str, levels))
            if len(set(texts)) < len(texts):
                raise ValueError(f"a level occurs twice in {', '.join(texts)}")
        if self.factor == "seed":
            raise ValueError(PAIRED_BY_SEED)
        return self

    @property
    @abstractmethod
    def levels_by_key(self) -> Mapping[str, Sequence[Value]]:
        """The levels that the claim names, by the key that names them."""

    @abstractmethod
    def comparisons(
        self, named: Sequence[Value], compared: Collection[Value], present: Collection[Value]
    ) -> Iterator[LevelComparison]:
        """Yield the comparisons of a cell.

        Args:
            named: the levels that the claim names, as `named_levels` orders them.
            compared: the levels that it compares in any cell.
            present: the levels that this cell has, or should have.
        """

    @property
    def compared(self) -> set[str]:
        """Settings in which the compared trials differ: the factor."""
        return {self.factor}

    @property
    def names_all(self) -> bool:
        """True if the claim compares the levels that it names, and no others."""
        return True

    @property
    def named_levels(self) -> list[Value]:
        """The levels that the claim names, each once."""
        named: dict[str, Value] = {}
        for levels in self.levels_by_key.values():
            for level in levels:
                named.setdefault(str(level), level)
        return list(named.values())

    @property
    def names(self) -> dict[str, KeyPath]:
        """The settings that the claim compares and selects by, and where it names them."""
        return {self.factor: ("factor",), **super().names}

    @property
    def values(self) -> list[tuple[KeyPath, str, Value]]:
        """Values that some trial should have: where the claim names it, the setting, the value."""
        by_key = self.levels_by_key.items()
        return super().values + [((key,), self.factor, v) for key, some in by_key for v in some]

    def compare(self, trials: Trials, found: Sequence[Configuration]) -> Iterator[Comparison]:
        """Compare levels of the factor cell by cell, all other settings held fixed."""
        if self.factor not in trials.settings:  # all trials have the same level
            return
        found = [each for each in found if each.settings[self.factor] is not None]
        check_seeds(found)
        named = self._named_in(trials)
        if len(set(named)) < len(named):
            raise ClaimError(f"a level occurs twice in {', '.join(map(str, named))}", "factor")
        by_level = self._by_level(trials, found)
        compared = {*named, *by_level}
        rows = [each for level in by_level.values() for each in level]
        every_seed = () if trials.plan_known else seeds_of(rows)
        for cell, sides in self._cells(found, compared):
            present = {*named, *(sides if trials.plan_known else compared)}
            for each in self.comparisons(named, compared, present):
                configurations = tuple(sides.get(level, ABSENT) for level in each.levels)
                apart = tuple(name for name in self.despite if differ(configurations, name))
                yield Comparison(
                    cell,
                    each.what,
                    each.weights,
                    configurations,
                    every_seed,
                    apart,
                    each.candidate,
                )

    def sides(self, trials: Trials, found: Sequence[Configuration]) -> list[list[Configuration]]:
        """Return the configurations of each level that is compared."""
        return list(self._by_level(trials, found).values())

    def _named_in(self, trials: Trials) -> list[Value]:
        """Return the levels that the claim names, as the trials have them."""
        return [as_in(trials.table[self.factor], level) for level in self.named_levels]

    def _by_level(
        self, trials: Trials, found: Sequence[Configuration]
    ) -> dict[Value, list[Configuration]]:
        """Return the configurations of each level that is compared."""
        named = self._named_in(trials)
        by_level: dict[Value, list[Configuration]] = defaultdict(list)
        for each in found:
            level = each.settings.get(self.factor)
            if level is not None and (level in named or not self.names_all):
                by_level[level].append(each)
        return by_level

    def _cells(
        self, found: Sequence[Configuration], compared: Collection[Value]
    ) -> list[tuple[str, Cell]]:
        """Return configurations that agree except in the factor and `despite`, by their levels.

        Raises:
            ClaimError: a level has several.
            ConfoundedError: no two levels have configurations that agree.
        """
        names = list(found[0].settings) if found else []
        fixed = [name for name in names if name not in (self.factor, *self.despite)]
        vary = [name for name in fixed if differ(found, name)]
        cells: dict[tuple[Value | None, ...], Cell] = defaultdict(dict)
        for configuration in found:
            level = configuration.settings[self.factor]
            by_level = cells[tuple(configuration.settings[name] for name in vary)]
            if level in by_level:
                raise self._ambiguous(by_level[level], configuration)
            if level in compared:  # else its cell is there, without it
                by_level[level] = configuration
        if not any(len(by_level) > 1 for by_level in cells.values()):
            self._refuse_confounded(vary, [f for f in found if f.settings[self.factor] in compared])
        labels = [label(dict(zip(vary, cell, strict=True))) for cell in cells]
        return list(zip(labels, cells.values(), strict=True))

    def _ambiguous(self, first: Configuration, second: Configuration) -> ClaimError:
        apart = [name for name in self.despite if differ([first, second], name)]
        return ClaimError(
            f"several configurations with {self.factor}={second.settings[self.factor]}, such as"
            f" {label(second.settings)}, differ only in {', '.join(apart)}: fix that by `where`",
            "despite",
        )

    def _refuse_confounded(self, names: Sequence[str], found: Sequence[Configuration]) -> None:
        """Refuse configurations of which no two levels agree, naming the two nearest ones."""
        others = [f for f in found if f.settings[self.factor] != found[0].settings[self.factor]]
        if others:
            apart = [[n for n in names if differ([found[0], other], n)] for other in others]
            nearest = min(range(len(others)), key=lambda at: len(apart[at]))
            raise ConfoundedError(
                f"no two levels of {self.factor} agree in all else, such as"
                f" {label(found[0].settings)}: the nearest"
                f" {differ_in(apart[nearest], found[0], others[nearest])}",
                "factor",
            )


class OpenClaim(FactorClaim):
    """A claim that need not name all levels that it compares."""

    levels: Levels | None = None  # those that each cell must have; no others are compared

    @property
    def levels_by_key(self) -> Mapping[str, Sequence[Value]]:
        """The levels that the claim names, by the key that names them."""
        return {"levels": self.levels or []}

    @property
    def names_all(self) -> bool:
        """True if the claim compares the levels that it names, and no others."""
        return bool(self.levels)


class DirectedClaim(OpenClaim):
    """A claim about the effect of a higher level; the factor is a number."""

    @property
    @abstractmethod
    def direction(self) -> Direction:
        """How the loss should change with the level: falling or rising."""

    def compare(self, trials: Trials, found: Sequence[Configuration]) -> Iterator[Comparison]:
        """Compare levels of the factor cell by cell, if it is a number in every trial."""
        if not pd.api.types.is_numeric_dtype(trials.table[self.factor]):
            raise ClaimError(
                f"{self.factor} is not a number in every trial, so it has no direction; name its"
                " levels with `order`",
                "factor",
            )
        yield from super().compare(trials, found)

    def best_first(self, levels: Collection[Value]) -> list[Value]:
        """Return the levels in order, first the one that should have the lowest loss."""
        return ascending(levels) if self.direction == "rising" else ascending(levels)[::-1]


def ascending(levels: Iterable[Value]) -> list[Value]:
    """Return levels in order: numbers, then words."""
    return sorted(levels, key=lambda level: (isinstance(level, str), level))
