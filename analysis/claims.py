"""Claims as data: what is said of val_loss, in a form that trials can bear out or not.

A file of claims is YAML::

    margin: 0.002                      # nats; a smaller difference does not matter
    claims:
      - claim: rope is better than sinpe, and sinpe than randn
        where: {variant: attention}    # of these trials
        factor: pe_type                # compare its levels, all other settings held fixed
        order: [rope, sinpe, randn]    # best first
        holds: in every cell           # or: on average, not in every cell

Lower is better. What is held fixed makes the cells: by default all settings that differ between the
trials that ``where`` selects; of two selections, those that differ within both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analysis.errors import AnalysisError
from analysis.plain_yaml import YamlError, read_yaml

Value = bool | int | float | str
Selection = dict[str, Value | Annotated[list[Value], Field(min_length=1)]]
Side = Annotated[Selection, Field(min_length=1)]
Levels = Annotated[list[Value], Field(min_length=2, max_length=100)]  # `equal` compares all pairs
Scope = Literal["in every cell", "not in every cell", "on average"]
Direction = Literal["falling", "rising"]

SHIPPED = Path(__file__).parent / "claims.yaml"
FORMS = ("order", "monotone", "trend", "best", "equal")
MARGIN = 0.002  # nats per character


class Claim(BaseModel):
    """A statement in one of six forms.

    ``better`` and ``worse``: each configuration of the one selection against each of the other that
    has the same values of ``within``. With a ``factor``, one of: ``order``, levels from best to
    worst, each better than the next; ``monotone``, the loss is falling (or rising) at each step to
    the next higher level; ``trend``, it tends to fall (or rise) as the level goes up; ``best``, a
    level is better than each other one; ``equal``, levels that differ by less than the margin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    claim: Annotated[str, Field(min_length=1)]
    where: Selection = Field(default_factory=dict)
    better: Side | None = None
    worse: Side | None = None
    factor: str | None = None
    order: Levels | None = None
    monotone: Direction | None = None
    trend: Direction | None = None
    best: Value | None = None
    equal: Levels | None = None
    within: list[str] | None = None
    holds: Scope = "in every cell"
    margin: Annotated[float, Field(gt=0)] = MARGIN

    @model_validator(mode="after")
    def _one_form(self) -> Claim:
        given = [name for name in FORMS if getattr(self, name) is not None]
        if self.factor is None:
            if self.better is None or self.worse is None or given:
                raise ValueError("give `better` and `worse`, or a `factor`")
        elif len(given) != 1 or self.better is not None or self.worse is not None:
            raise ValueError(f"with a `factor` give one of {', '.join(FORMS)}, and nothing else")
        levels = list(map(str, self.named_levels))
        if len(set(levels)) < len(levels):
            raise ValueError(f"a level occurs twice in {', '.join(levels)}")
        if "seed" in (self.factor, *(self.within or [])):
            raise ValueError("trials are paired by their seed: it is neither compared nor a cell")
        return self

    @property
    def named_levels(self) -> list[Value]:
        """The levels of the factor that it names, best first."""
        return [*(self.order or []), *(self.equal or []), *_listed(self.best)]

    @property
    def names(self) -> set[str]:
        """The settings that it speaks of."""
        sides = {*self.where, *(self.better or {}), *(self.worse or {}), *(self.within or [])}
        return sides | ({self.factor} if self.factor else set())

    @property
    def values(self) -> list[tuple[str, Value]]:
        """The values that some trial should have, each with its setting."""
        found = []
        for selection in (self.where, self.better or {}, self.worse or {}):
            for name, value in selection.items():
                found += [(name, one) for one in _listed(value)]
        return found + [(self.factor, level) for level in self.named_levels if self.factor]


@dataclass(frozen=True)
class ClaimFile:
    """Claims, and what to call their source."""

    claims: Sequence[Claim]
    source: str
    shipped: bool  # with this package, about the published study


def load_claims(path: Path | None = None) -> ClaimFile:
    """Read a file of claims; None takes those of the published study.

    Raises:
        AnalysisError: it cannot be read, or a claim has no meaning.
    """
    source = path or SHIPPED
    try:
        data = read_yaml(source)
    except YamlError as error:
        raise AnalysisError(f"{source}: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("claims"), list) or not data["claims"]:
        raise AnalysisError(f"{source}: expected a list of claims under `claims:`")
    if unknown := data.keys() - {"claims", "margin"}:
        raise AnalysisError(f"{source}: unknown {min(map(str, unknown))!r}; known: claims, margin")
    default = {"margin": data["margin"]} if "margin" in data else {}
    claims = [
        _claim(one if not isinstance(one, dict) else default | one, f"{source}: claims[{index}]")
        for index, one in enumerate(data["claims"])
    ]
    return ClaimFile(claims, source.name, shipped=path is None)


def _claim(data: Any, where: str) -> Claim:
    try:
        return Claim.model_validate(data)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        name = f".{error['loc'][0]}" if error["loc"] else ""
        message = str(error["msg"]).removeprefix("Value error, ")
        if len(error["loc"]) > 1 and error["type"].endswith("_type"):
            message = "expected a word, a number, or a list of at least one"
        if error["type"] == "extra_forbidden":
            message = f"unknown; known: {', '.join(Claim.model_fields)}"
        raise AnalysisError(f"{where}{name}: {message}") from None


def _listed(value: Value | list[Value] | None) -> list[Value]:
    return [] if value is None else value if isinstance(value, list) else [value]
