"""Files of claims, and claims given in Python.

A file is YAML::

    margin: 0.002                      # nats; a smaller difference does not matter
    corrected: true                    # one wrong verdict in all claims counts as one error
    borrow: true                       # variances across cells
    bound: 0.2                         # nats; no pair differs by more, for verdicts of any look
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

docs/claims.md shows each form. In Python the same is a list of dictionaries.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from analysis.claims.claim import Claim, KeyPath
from analysis.claims.configurations import Configuration
from analysis.claims.contrast import Comparison
from analysis.claims.forms import FORMS
from analysis.claims.forms.factor import FactorClaim
from analysis.errors import AnalysisError
from analysis.text.plain_yaml import Lines, YamlError, parse_with_lines, text_of
from analysis.trials.table import Trials

SHIPPED = Path(__file__).parents[1] / "claims.yaml"
SWITCHES = ("corrected", "borrow")  # keys of a file that are true or false
FILE_KEYS = ("claims", "margin", *SWITCHES, "bound")
EXAMPLE = "{claim: rope is best, factor: pe_type, best: rope}"
KNOWN = tuple(dict.fromkeys(key for form in FORMS for key in form.model_fields))
OPTIONAL = {*KNOWN} - {*Claim.model_fields}  # keys that may be there without a value
BY_LEVELS = [form for form in FORMS if issubclass(form, FactorClaim)]

ClaimData = Claim | Mapping[str, object] | Sequence[Claim | Mapping[str, object]]


class Formless(Claim):
    """A claim whose form is not clear: only the keys that all claims have."""

    model_config = ConfigDict(extra="allow")

    @property
    def compared(self) -> set[str]:
        """No settings."""
        return set()

    def compare(self, trials: Trials, found: Sequence[Configuration]) -> Iterator[Comparison]:
        """Compare nothing."""
        return iter(())

    def sides(self, trials: Trials, found: Sequence[Configuration]) -> list[list[Configuration]]:
        """No groups."""
        return []


class WrongPartError(Exception):
    """A part of a claim is wrong.

    Attributes:
        path: to the part, from the claim.
        rest: of the path, inside of the part.
    """

    def __init__(self, problem: str, *path: str | int, rest: KeyPath = ()) -> None:
        super().__init__(problem)
        self.path = path
        self.rest = rest


@dataclass(frozen=True)
class ClaimFile:
    """Claims, and where they are from."""

    claims: Sequence[Claim]
    source: str  # empty: from Python
    shipped: bool  # with this package, about the published study
    lines: Lines
    corrected: bool = False  # whether verdicts are corrected for the number of claims
    borrow: bool = False  # whether a difference borrows its variance from those of other cells
    bound: float | None = None  # nats: no pair of trials differs by more, whatever its noise
    text: str = ""  # of the file

    def place(self, index: int, path: KeyPath = ()) -> str:
        """Return where a part of a claim is: ``claims.yaml: line 12: claims[3].despite``."""
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
        text = text_of(file)
        data, lines = parse_with_lines(text)
    except YamlError as error:
        raise AnalysisError(f"{file}: {error}") from None
    return replace(_claim_file(data, str(file), lines), shipped=source is None, text=text)


def read_claim(data: object) -> Claim:
    """Read a claim, a dictionary as a file has it.

    Raises:
        AnalysisError: it has no meaning.
    """
    (claim,) = _claim_file({"claims": [data]}, "", {}).claims
    return claim


def _claim_file(data: object, source: str, lines: Lines) -> ClaimFile:
    if isinstance(data, dict) and data.get("claims") == []:
        raise AnalysisError(f"{source}{': ' if source else ''}no claims given")
    if not isinstance(data, dict) or not isinstance(data.get("claims"), list):
        expected = f"{source}: expected a list of claims under `claims:`"
        raise AnalysisError(expected if source else "claims: expected a file or a list of claims")
    if unknown := sorted(data.keys() - {*FILE_KEYS}, key=str):
        raise AnalysisError(
            f"{_line(source, lines, unknown[0])}unknown {str(unknown[0])!r};"
            f" known: {', '.join(FILE_KEYS)}"
        )
    for key in SWITCHES:
        if not isinstance(given := data.get(key, False), bool):
            raise AnalysisError(
                f"{_line(source, lines, key)}`{key}` is true or false, not {reprlib.repr(given)}"
            )
    bound = data.get("bound")
    if bound is not None and not _is_length(bound):
        raise AnalysisError(
            f"{_line(source, lines, 'bound')}`bound` is a number of nats above 0, not"
            f" {reprlib.repr(bound)}"
        )
    default = {"margin": data["margin"]} if "margin" in data else {}
    claims = []
    for index, part in enumerate(data["claims"]):
        try:
            claims.append(_claim(part, default))
        except WrongPartError as wrong:
            path: KeyPath = ("claims", index, *wrong.path)
            if wrong.path == ("margin",) and "margin" not in part:
                path = ("margin",)
            place = _place(source, lines, path, wrong.rest)
            raise AnalysisError(f"{place}: {wrong}") from None
    switches = {key: data.get(key, False) for key in SWITCHES}
    return ClaimFile(claims, source, False, lines, bound=bound, **switches)


def _is_length(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf


def _line(source: str, lines: Lines, key: str) -> str:
    """Return where a key of the file is, as the start of a message; empty for Python's data."""
    return f"{source}: line {lines.get((key,), 1)}: " if source else ""  # no key is found by .nan


def _plain(value: object, depth: int = 4) -> object:
    """Return data of Python as a file has them: lists for tuples and arrays, no numpy numbers.

    Args:
        value: of a claim.
        depth: down to which, as a claim has no more lists in lists.
    """
    if isinstance(value, Mapping) and depth:
        return {name: _plain(part, depth - 1) for name, part in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_plain(part, depth - 1) for part in value]
    to_list = getattr(value, "tolist", None)
    return to_list() if to_list else value


def _claim(data: object, default: Mapping[str, object]) -> Claim:
    """Read a claim.

    Raises:
        WrongPartError: it has no meaning.
    """
    if isinstance(data, Claim):
        return data
    if not isinstance(data, dict):
        raise WrongPartError(f"a claim is a map, such as {EXAMPLE}, not {reprlib.repr(data)}")
    form = _form_of(data)
    given = {key: value for key, value in data.items() if value is not None or key not in OPTIONAL}
    try:
        claim = (form or Formless).model_validate({**default, **given})
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        raise _wrong_part(error) from None
    if form is None:
        raise _without_form(data)
    return claim


def _form_of(data: Mapping[str, object]) -> type[Claim] | None:
    """Return the form of a claim by its keys; None if they belong to no form, or to several."""
    given = {key for key, value in data.items() if value is not None}
    forms = [form for form in FORMS if given & {*form.keys}]
    if len(forms) != 1 or not given >= {*forms[0].keys}:
        return None
    is_of_levels = forms[0] in BY_LEVELS
    return forms[0] if is_of_levels == ("factor" in given) else None


def _without_form(data: Mapping[str, object]) -> WrongPartError:
    """Return the error of a claim whose keys belong to no form, or to several."""
    if unknown := [key for key in data if key not in KNOWN]:
        return WrongPartError(_unknown(unknown[0]), unknown[0])
    if data.get("factor") is None:
        return WrongPartError("give `better` and `worse`, or a `factor`")
    names = ", ".join(_keys(BY_LEVELS))
    return WrongPartError(f"with a `factor` give one of {names}, and nothing else")


def _wrong_part(error: ErrorDetails) -> WrongPartError:
    """Return the error of a claim, from pydantic's error."""
    path = error["loc"]
    forms = [form for form in FORMS if {*path[:1]} & form.model_fields.keys()]
    if error["type"] == "extra_forbidden" and forms:
        return WrongPartError(f"`{path[0]}` is for {', '.join(_keys(forms))}")
    return WrongPartError(_problem(error), *path[:1], rest=path[1:])


def _problem(error: ErrorDetails) -> str:
    """Return the error of a part of a claim, from pydantic's error."""
    name = error["loc"][0] if error["loc"] else ""
    kind, given = error["type"], reprlib.repr(error["input"])
    if kind == "extra_forbidden":
        return _unknown(name)
    if name == "despite":
        return "expected a list of settings, such as [learning_rate]"
    if name == "best":
        return "expected a level, `any` to ask which one is best, or [any] for a level of that name"
    if len(error["loc"]) > 1 and kind.endswith("_type"):
        return "expected a word, a number, or a list of at least one"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind in ("too_short", "too_long"):
        limits = {"min_length": "at least", "max_length": "at most"}
        (limit,) = [f"{text} {error['ctx'][n]}" for n, text in limits.items() if n in error["ctx"]]
        return f"should have {limit} items, not {error['ctx']['actual_length']}"
    if kind == "string_too_short":
        return "should not be empty"
    if kind == "dict_type":
        return f"should be a map, name: value, not {given}"
    return f"{str(error['msg']).removeprefix('Input ')}, not {given}"


def _unknown(key: object) -> str:
    """Return the error of a key that no claim can have."""
    if key == "within":
        return (
            "is no more: trials are compared where all their settings agree; name those that may"
            " differ in `despite`, and fix others in `where`"
        )
    return f"unknown; known: {', '.join(KNOWN)}"


def _keys(forms: Collection[type[Claim]]) -> list[str]:
    return [key for form in forms for key in form.keys]


def _place(source: str, lines: Lines, path: KeyPath, rest: KeyPath = ()) -> str:
    """Return a part in the file, and its line: of the rest of the path as much as the file has."""
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
