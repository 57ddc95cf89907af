"""Claims as data: what is said of val_loss, in a form that trials can bear out or not.

A file of claims is YAML::

    margin: 0.002                      # nats; a smaller difference does not matter
    claims:
      - claim: rope is better than sinpe, and sinpe than randn
        where: {variant: attention}    # of these trials
        factor: pe_type                # compare its levels, all other settings held fixed
        order: [rope, sinpe, randn]    # best first
        holds: in every cell           # or: on average, not in every cell
      - claim: attention is better than the plain bigram
        better: {variant: attention}
        worse: {variant: bigram}
        despite: [block_size]          # which may differ between the two; the verdict says so

docs/claims.md shows each form. In Python the same is a list of dictionaries. Lower is better. Two
trials are compared where their seed and all their settings agree, but those that the claim is
about, those that `despite` names, and those that only one of the two has.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analysis.errors import AnalysisError
from analysis.text.plain_yaml import Lines, YamlError, read_with_lines
from analysis.trials.selection import Value

Selection = dict[str, Value | Annotated[list[Value], Field(min_length=1)]]
Side = Annotated[Selection, Field(min_length=1)]
Levels = Annotated[list[Value], Field(min_length=2, max_length=100)]  # `equal` compares all pairs
Scope = Literal["in every cell", "not in every cell", "on average"]
Direction = Literal["falling", "rising"]

SHIPPED = Path(__file__).parents[1] / "claims.yaml"
FORMS = ("order", "monotone", "trend", "best", "equal")
OPEN_FORMS = ("monotone", "trend", "best")  # which do not name all of their levels
EXAMPLE = "{claim: rope is best, factor: pe_type, best: rope}"
ANY = "any"  # as `best`: whichever level it is; [any] is a level of that name
MARGIN = 0.002  # nats per character

KeyPath = tuple[str | int, ...]  # keys and indices


class ClaimError(AnalysisError):
    """The trials cannot be held against a claim.

    Attributes:
        path: of the part of the claim that is to blame, such as ``("better", "variant")``.
    """

    def __init__(self, problem: str, *path: str | int) -> None:
        super().__init__(problem)
        self.path = path


class ConfoundedError(ClaimError):
    """What a claim compares differs in more than the claim says."""


class Claim(BaseModel):
    """A statement in one of six forms.

    ``better`` and ``worse``: each configuration of the one selection against each of the other that
    agrees with it. With a ``factor``, one of: ``order``, levels from best to worst, each better
    than the next; ``monotone``, the loss is falling (or rising) at each step to the next higher
    level; ``trend``, it tends to fall (or rise) as the level goes up; ``best``, a level is better
    than each other one, and ``best: any`` asks which one is; ``equal``, levels that differ by less
    than the margin. ``levels`` are those that each cell must have for ``monotone``, ``trend`` and
    ``best``; no others are compared.
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
    best: Value | Annotated[list[Value], Field(min_length=1, max_length=1)] | None = None
    equal: Levels | None = None
    levels: Levels | None = None
    despite: list[str] = Field(default_factory=list)
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
        if self.levels is not None and not set(given) & set(OPEN_FORMS):
            raise ValueError(f"`levels` is for {', '.join(OPEN_FORMS)}")
        if self.asks_best and self.holds == "not in every cell":
            raise ValueError("`best: any` holds in every cell or on average")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Claim:
        for levels in (self.order, self.equal, self.levels):
            texts = list(map(str, levels or []))
            if len(set(texts)) < len(texts):
                raise ValueError(f"a level occurs twice in {', '.join(texts)}")
        best = self.best_level
        if self.levels and best is not None and str(best) not in map(str, self.levels):
            raise ValueError(f"the best level, {best}, is not among `levels`")
        if "seed" in (self.factor, *self.despite):
            raise ValueError("trials are paired by their seed: it is neither compared nor open")
        if same := sorted(self.compared & set(self.despite)):
            raise ValueError(f"{same[0]!r} is compared, so it differs anyway: not in `despite`")
        return self

    @property
    def asks_best(self) -> bool:
        """Whether it asks which level is best, and names none."""
        return self.best == ANY

    @property
    def best_level(self) -> Value | None:
        """The level that it says is best."""
        return None if self.asks_best else next(iter(_listed(self.best)), None)

    @property
    def compared(self) -> set[str]:
        """The settings in which what is compared differs, as the claim says."""
        return {*(self.better or {}), *(self.worse or {}), *([self.factor] if self.factor else [])}

    @property
    def named_levels(self) -> list[Value]:
        """The levels of the factor that it names, best first."""
        named = [*(self.order or []), *(self.equal or []), *_listed(self.best_level)]
        return named + [level for level in self.levels or [] if str(level) not in map(str, named)]

    @property
    def names_all(self) -> bool:
        """Whether it compares the levels that it names, and no others."""
        return bool(self.order or self.equal or self.levels)

    @property
    def names(self) -> dict[str, KeyPath]:
        """The settings that it compares and selects by, and where it names them."""
        sides = ("where", "better", "worse")
        found: dict[str, KeyPath] = {self.factor: ("factor",)} if self.factor else {}
        for side in sides:
            found |= {name: (side, name) for name in getattr(self, side) or {}}
        return found

    @property
    def values(self) -> list[tuple[KeyPath, str, Value]]:
        """The values that some trial should have, with where it names them and their setting."""
        found: list[tuple[KeyPath, str, Value]] = []
        for side in ("where", "better", "worse"):
            for name, value in (getattr(self, side) or {}).items():
                found += [((side, name), name, one) for one in _listed(value)]
        for form in ("order", "equal", "best", "levels"):
            for level in _listed(self.best_level if form == "best" else getattr(self, form)):
                found.append(((form,), str(self.factor), level))
        return found


ClaimData = Claim | Mapping[str, Any] | Sequence[Claim | Mapping[str, Any]]


@dataclass(frozen=True)
class ClaimFile:
    """Claims, and where they are from."""

    claims: Sequence[Claim]
    source: str  # empty: from Python
    shipped: bool  # with this package, about the published study
    lines: Lines

    def place(self, index: int, path: KeyPath = ()) -> str:
        """Where a part of a claim is, such as ``claims.yaml: line 12: claims[3].despite``."""
        return _place(self.source, self.lines, ("claims", index, *path))


def load_claims(source: Path | str | ClaimData | None = None) -> ClaimFile:
    """Read claims.

    Args:
        source: a file, a claim, a list of claims, or a dictionary as the file has it; None takes
            the claims of the published study.

    Raises:
        AnalysisError: it cannot be read, or a claim has no meaning.
    """
    if source is not None and not isinstance(source, Path | str):
        is_content = isinstance(source, Mapping) and "claims" in source
        if isinstance(source, Claim | Mapping) and not is_content:
            source = [source]
        return _claim_file(_plain(source if is_content else {"claims": source}), "", {})
    file = SHIPPED if source is None else Path(source)
    try:
        data, lines = read_with_lines(file)
    except YamlError as error:
        raise AnalysisError(f"{file}: {error}") from None
    return replace(_claim_file(data, str(file), lines), shipped=source is None)


def _claim_file(data: Any, source: str, lines: Lines) -> ClaimFile:
    if isinstance(data, dict) and data.get("claims") == []:
        raise AnalysisError(f"{source}{': ' if source else ''}no claims given")
    if not isinstance(data, dict) or not isinstance(data.get("claims"), list):
        expected = f"{source}: expected a list of claims under `claims:`"
        raise AnalysisError(expected if source else "claims: expected a file or a list of claims")
    if unknown := sorted(data.keys() - {"claims", "margin"}, key=str):
        line = lines.get((unknown[0],), 1)  # no key is found by .nan
        place = f"{source}: line {line}: " if source else ""
        raise AnalysisError(f"{place}unknown {str(unknown[0])!r}; known: claims, margin")
    claims = [_claim(one, data, source, lines, index) for index, one in enumerate(data["claims"])]
    return ClaimFile(claims, source, False, lines)


def _plain(value: Any, depth: int = 4) -> Any:
    """Data of Python as a file has them: lists for tuples and arrays, Python's numbers for numpy's.

    Args:
        value: of a claim.
        depth: down to which, as a claim has no more lists in lists.
    """
    if isinstance(value, Mapping) and depth:
        return {name: _plain(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_plain(one, depth - 1) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _claim(one: Any, file: dict[str, Any], source: str, lines: Lines, index: int) -> Claim:
    default = {"margin": file["margin"]} if "margin" in file else {}
    try:
        return Claim.model_validate(default | one if isinstance(one, dict) else one)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        path: KeyPath = ("claims", index, *error["loc"][:1])
        if error["loc"][:1] == ("margin",) and "margin" not in one:
            path = ("margin",)
        place = _place(source, lines, path, error["loc"][1:])
        raise AnalysisError(f"{place}: {_problem(error)}") from None


def _problem(error: Any) -> str:
    """What pydantic says of a claim, in words that help."""
    name = error["loc"][0] if error["loc"] else ""
    if error["type"] == "extra_forbidden" and name == "within":
        return (
            "is no more: trials are compared where all their settings agree; name those that may"
            " differ in `despite`, and fix others in `where`"
        )
    if error["type"] == "extra_forbidden":
        return f"unknown; known: {', '.join(Claim.model_fields)}"
    if not error["loc"] and error["type"] != "value_error":
        return f"a claim is a map, such as {EXAMPLE}, not {reprlib.repr(error['input'])}"
    if name == "despite":
        return "expected a list of settings, such as [learning_rate]"
    if name == "best":
        return "expected a level, `any` to ask which one is best, or [any] for a level of that name"
    if len(error["loc"]) > 1 and error["type"].endswith("_type"):
        return "expected a word, a number, or a list of at least one"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("too_short", "too_long"):
        limits = {"min_length": "at least", "max_length": "at most"}
        (limit,) = [
            f"{words} {error['ctx'][n]}" for n, words in limits.items() if n in error["ctx"]
        ]
        return f"should have {limit} items, not {error['ctx']['actual_length']}"
    if error["type"] == "string_too_short":
        return "should not be empty"
    if error["type"] == "dict_type":
        return f"should be a map, name: value, not {reprlib.repr(error['input'])}"
    return f"{str(error['msg']).removeprefix('Input ')}, not {reprlib.repr(error['input'])}"


def _place(source: str, lines: Lines, path: KeyPath, rest: KeyPath = ()) -> str:
    """A part in the file, and its line: of the rest of the path as much as the file has."""
    named = "".join(map(_step, path)).removeprefix(".")
    if not source:
        return named
    whole = (*path, *rest)
    known = next(whole[:n] for n in range(len(whole), -1, -1) if whole[:n] in lines)
    return f"{source}: line {lines[known]}: {named}"


def _step(part: str | int) -> str:
    if isinstance(part, str) and re.fullmatch(r"\w+", part):
        return f".{part}"
    return f"[{part!r}]"


def _listed(value: Value | list[Value] | None) -> list[Value]:
    return [] if value is None else value if isinstance(value, list) else [value]
