"""Record of a search: the tag ``search`` of the run of a sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, SupportsFloat, SupportsInt

from analysis.errors import AnalysisError
from analysis.trials.selection import Value

EDGE = 0.05  # of a range: an optimum that is nearer to an end is at its edge
NO_SPACE: Mapping[str, Space] = {}


@dataclass(frozen=True)
class Space:
    """Values that a search may choose for a setting: ``choices``, or the numbers of a range."""

    choices: tuple[Value, ...] = ()
    low: float = math.nan  # NaN for choices
    high: float = math.nan  # the highest value that steps from low reach
    log: bool = False
    step: float | None = None
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)  # only with these elsewhere

    @staticmethod
    def of(data: Any) -> Space:  # Any: JSON, which this checks
        """Read a list of choices, or a range.

        Raises:
            TypeError, KeyError, ValueError, ArithmeticError: it is neither.
        """
        if isinstance(data, list):
            return Space(tuple(data))
        when = {name: tuple(values) for name, values in data.get("when", {}).items()}
        if data.get("choices") is not None:
            return Space(tuple(data["choices"]), when=when)
        low, high = float(data["low"]), float(data["high"])
        log = bool(data.get("log"))
        step = None if data.get("step") is None else float(data["step"])
        if not -math.inf < low < high < math.inf or (log and low <= 0):
            raise ValueError(f"{low} to {high} is no {'logarithmic ' if log else ''}range")
        if step is not None:
            high = _reached(low, high, step)
            if not high >= low:
                raise ValueError(f"{step} is no step")
        return Space(low=low, high=high, log=log, step=step, when=when)

    def __str__(self) -> str:
        if self.choices:
            text = ", ".join(map(str, self.choices))
        else:
            text = f"{self.low:g} to {self.high:g}"
            text += " (log)" if self.log else f" by {self.step:g}" if self.step else ""
        conditions = [f"{name}={'|'.join(map(str, v))}" for name, v in self.when.items()]
        return f"{text} with {' '.join(conditions)}" if conditions else text

    def position(self, value: object) -> float:
        """Return where in the range a number lies, from 0 (low end) to 1; NaN if nowhere.

        In a logarithmic range equal ratios are equal distances. Choices have no position.
        """
        if not isinstance(value, SupportsFloat | str):  # missing
            return math.nan
        try:
            number = float(value)
        except ValueError:  # a word
            return math.nan
        if not math.isfinite(number) or (self.log and number <= 0) or self.low == self.high:
            return math.nan
        scale = math.log if self.log else float
        return (scale(number) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def edge(self, value: object) -> str:
        """Return ``low edge``, ``high edge``, or an empty text for all other values."""
        position = self.position(value)
        if position <= EDGE:
            return "low edge"
        return "high edge" if position >= 1 - EDGE else ""


def _reached(low: float, high: float, step: float) -> float:
    """Return the highest value that steps from the low end of a range reach."""
    start, end, width = (Decimal(str(number)) for number in (low, high, step))
    return float(start + (end - start) // width * width)


@dataclass(frozen=True)
class SearchRecord:
    """How a sweep searched."""

    sampler: str
    stopping: str
    objectives: tuple[str, ...]
    limits: Mapping[str, float]  # trials, hours, patience: those that were given
    seeds: tuple[int, ...]  # of a suggestion
    confirm_seeds: tuple[int, ...]  # of a winner that is trained again; none of the above
    arms: tuple[Mapping[str, Space], ...]  # what was tuned in each arm, by the names of the params

    @property
    def tuned(self) -> tuple[str, ...]:
        """The settings that some arm tuned."""
        return tuple(dict.fromkeys(name for arm in self.arms for name in arm))

    def space(self, arm: object) -> Mapping[str, Space]:
        """Return what was tuned in the arm with this index; nothing if there is none."""
        if not isinstance(arm, SupportsInt | str):  # missing
            return NO_SPACE
        try:
            return self.arms[int(arm)]
        except (ValueError, IndexError):
            return NO_SPACE

    def ranges(self, name: str) -> str:
        """Return the values that a setting was chosen from, in all arms that tuned it."""
        return "; ".join(dict.fromkeys(str(arm[name]) for arm in self.arms if name in arm))


def read_search(text: str | None) -> SearchRecord | None:
    """Read the tag; return None if the sweep has none, because it did not search.

    Raises:
        AnalysisError: it has another form.
    """
    if not text:
        return None
    try:
        data = json.loads(text)
        limits = {name: data.get(name) for name in ("trials", "hours", "patience")}
        return SearchRecord(
            sampler=str(data["sampler"]),
            stopping=str(data["stopping"]),
            objectives=tuple(data["objectives"]),
            limits={name: limit for name, limit in limits.items() if limit is not None},
            seeds=tuple(map(int, data["seeds"])),
            confirm_seeds=tuple(map(int, data["confirm_seeds"])),
            arms=tuple(
                {} if arm is None else {n: Space.of(s) for n, s in data["spaces"][arm].items()}
                for arm in data["arms"]
            ),
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise AnalysisError(
            f"the tag `search` of the sweep's run has another form than expected"
            f" ({type(error).__name__}: {error}); was it written by another version?"
        ) from None
