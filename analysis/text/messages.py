"""Errors and addresses as they may be shown: in few words, without passwords."""

from __future__ import annotations

import re

# SQLAlchemy says in which step it failed, and by which class, before it says what did.
AROUND = re.compile(
    r"\(raised as a result of [^)]*\)\s*|This Session's .* Original exception was: "
    r"|\((?:\w+\.)+[A-Z]\w*\) "
)
# Of a server's address a port may follow the first colon; in a database's, all up to the @ counts.
PASSWORDS = re.compile(
    r"(?P<before>\b(?:(?P<http>https?)|(?!https?:)[\w+]+)://[^/@:\s]*:)"
    r"(?(http)(?!\d+/))\S*(?P<after>@)"
    r"|(?P<start>(?<![\w:])(?:https?:)?//)[^/@\s]+(?P<end>@)"  # a user alone: often a token
    r"|(?P<name>[?&]\w*(?:password|passwd|pwd|secret|token)\w*=)[^&\s]+",
    re.IGNORECASE,
)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a password."""
    lines = AROUND.sub("", str(error)).strip().splitlines()
    return without_password(lines[0] if lines else type(error).__name__)


def without_password(text: str) -> str:
    """Hide the passwords in a URI, or in a text with URIs."""

    def masked(found: re.Match[str]) -> str:
        before = found["name"] or found["start"] or found["before"]
        return f"{before}...{found['after'] or found['end'] or ''}"

    return PASSWORDS.sub(masked, text)


def address_of(uri: str) -> str:
    """Return the address of a server without user and password."""
    return re.sub(r"://[^/@]*@", "://", without_password(uri)).rstrip("/")
