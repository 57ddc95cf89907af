"""YAML scalars: what a value without quotes is, and its value in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MOST_WHOLE = 2**64
SHOWN = 40  # characters of a value in a message

Scalar = str | int | float | bool | None

TAG = "tag:yaml.org,2002:"
STR, INT, FLOAT, BOOL, NULL, SEQ, MAP, MERGE = (
    TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")
)
LEADING_ZEROS, BASE_60 = "leading zeros", "base 60"  # tags of our own, for what is refused
DIGITS = "[0-9]+(_[0-9]+)*"
PLAIN = {  # the first that fits decides; all else is text
    LEADING_ZEROS: r"[-+]?0(_?[0-9])+",
    BASE_60: rf"[-+]?{DIGITS}(:[0-5]?[0-9])+(\.[0-9_]*)?",
    INT: rf"[-+]?({DIGITS}|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)",
    FLOAT: rf"[-+]?(\.[0-9]+|{DIGITS}(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    BOOL: "true|True|TRUE|false|False|FALSE",
    NULL: "~|null|Null|NULL|",
    MERGE: "<<",
}


class ScalarError(Exception):
    """A scalar has no value, or one that readers of YAML disagree on."""


def _text(text: str) -> str:
    """Join the halves of characters, as JSON escapes them."""
    if "\0" in text:
        raise ScalarError("a text cannot have the character U+0000")
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ScalarError("a text cannot have half of a character (a lone surrogate)") from None


def _whole(text: str) -> int:
    if len(text) > 3 * SHOWN or abs(int(text, 0)) > MOST_WHOLE:
        raise ScalarError(f"the whole number {shown(text)} is too large: they end at 2**64")
    return int(text, 0)


def _number(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _null(text: str) -> None:
    if not re.fullmatch(PLAIN[NULL], text):
        raise ValueError(text)


def _leading_zeros(text: str) -> None:
    number = re.sub("^([-+]?)[0_]+(?=.)", r"\1", text)
    raise ScalarError(
        f"readers of YAML disagree on leading zeros as in {shown(text)}: write"
        f" {number if len(number) <= SHOWN else 'it without them'} for a number, or quotes for text"
    )


def _base_60(text: str) -> None:
    raise ScalarError(
        f"readers of YAML disagree on {shown(text)}, a number in base 60 or text: write the number"
        " itself, or quotes for text"
    )


SCALARS: Mapping[str, Callable[[str], Scalar]] = {
    STR: _text,
    INT: _whole,
    FLOAT: _number,
    BOOL: lambda text: {"true": True, "false": False}[text.lower()],
    NULL: _null,
    MERGE: str,
    LEADING_ZEROS: _leading_zeros,
    BASE_60: _base_60,
}


def shown(value: object) -> str:
    """Return a value as a message shows it: quoted, and not too long."""
    text = value if isinstance(value, str) else str(value)
    short = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-5:]}"
    return repr(short)
