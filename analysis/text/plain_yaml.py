"""YAML as plain data: text, numbers, true and false, null, lists and maps.

A value without quotes has the type that YAML 1.2 gives it: ``1e-2`` is a number; ``off``, ``no``
and ``2024-01-01`` are text. What readers of YAML disagree on is refused with what to write instead:
numbers with leading zeros, in base 60 (``1:30``), and keys that occur twice. Merge keys (``<<``)
and aliases work. Whatever a text is, reading it takes bounded time, memory and depth.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from analysis.text.yaml_scalars import (
    MAP,
    MERGE,
    PLAIN,
    SCALARS,
    SEQ,
    TAG,
    Scalar,
    ScalarError,
    shown,
)

MOST_BYTES = 1 << 19
MOST_VALUES = 10_000  # each alias counts as all that it stands for
MOST_DEPTH = 50  # of lists and maps in one another

YamlData: TypeAlias = "Scalar | list[YamlData] | dict[Scalar, YamlData]"
Lines = Mapping[tuple[Scalar, ...], int]  # by keys and indices from the root; lines count from 1


class YamlError(Exception):
    """A text is not YAML, or not plain data.

    Attributes:
        problem: in words, without the line.
        line: from 1; None if the problem is in no single line.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"line {line}: {problem}")
        self.problem = problem
        self.line = line


def read_yaml(path: Path) -> Any:  # Any: the caller checks it, as of `json.loads`
    """Return the value of a YAML file.

    Raises:
        YamlError: it cannot be read, or `parse_yaml` refuses it.
    """
    return parse_yaml(text_of(path))


def read_with_lines(path: Path) -> tuple[Any, Lines]:  # Any: as of `read_yaml`
    """Return the value of a YAML file, and the line of each of its parts.

    Raises:
        YamlError: as `read_yaml`.
    """
    return parse_with_lines(text_of(path))


def parse_with_lines(text: str) -> tuple[Any, Lines]:  # Any: as of `read_yaml`
    """Return the value of a YAML document, and the line of each of its parts.

    Raises:
        YamlError: as `read_yaml`.
    """
    node = _composed(text)
    return (None, {(): 1}) if node is None else (_value(node), _lines(node))


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        YamlError: it cannot be read, is too long or is not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise YamlError("cannot be read: it is not a file")  # a pipe or device may never end
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise YamlError(f"cannot be read: {error}") from None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        if len(content) > MOST_BYTES:
            raise _too_long() from None
        raise YamlError(f"is not UTF-8: {error.reason}") from None


def parse_yaml(text: str) -> Any:  # Any: as of `read_yaml`
    """Return the value of a YAML document.

    Raises:
        YamlError: it is not YAML, or not plain data of a reasonable size.
    """
    node = _composed(text)
    return None if node is None else _value(node)


def _composed(text: str) -> Node | None:
    """Return the root of a document; None if it is empty."""
    if len(text) > MOST_BYTES:
        raise _too_long()
    try:
        composer = _Composer(text)
    except ReaderError as error:
        problem = f"not YAML: it has the character {_code(error.character)}"
        raise YamlError(problem, 1 + text.count("\n", 0, error.position)) from None
    try:
        return composer.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise YamlError(f"not YAML: {problem:.200}", line) from None
    except (ValueError, OverflowError) as error:  # of an escape such as "\UFFFFFFFF"
        raise YamlError(f"not YAML: {error}", composer.get_mark().line + 1) from None


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Compose the nodes of a document, and refuse too many or too deep ones."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0
        self._count = 0
        self._sizes: dict[Node, int] = {}  # of the nodes that are complete

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node and all that is in it, and count them."""
        is_alias = self.check_event(yaml.AliasEvent)
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        before = self._count
        self._count += 1
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise YamlError(f"more than {MOST_DEPTH} lists and maps in one another", line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None
        if not is_alias:
            self._sizes[node] = self._count - before
        elif node in self._sizes:
            self._count += self._sizes[node]
        else:
            raise YamlError("an alias inside of what it stands for", line)
        if self._count > MOST_VALUES:
            raise YamlError(f"more than {MOST_VALUES:,} values, aliases spelt out", line)
        return node


for _tag, _pattern in PLAIN.items():
    _Composer.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)


def _value(node: Node) -> YamlData:
    if isinstance(node, ScalarNode):
        return _scalar(node)
    if isinstance(node, MappingNode):
        _check_tag(node, MAP)
        return _mapping(node)
    _check_tag(node, SEQ)
    return [_value(item) for item in node.value]


def _scalar(node: ScalarNode) -> Scalar:
    _check_tag(node, *SCALARS)
    try:
        return SCALARS[node.tag](node.value)
    except (ValueError, KeyError):
        kind = node.tag.removeprefix(TAG)
        raise _refused(node, f"{shown(node.value)} is no value of !!{kind}") from None
    except ScalarError as error:
        raise _refused(node, str(error)) from None


def _check_tag(node: Node, *known: str) -> None:
    if node.tag not in known:
        tag = node.tag.replace(TAG, "!!")
        raise _refused(node, f"the tag {shown(tag)} is not used here; leave it out")


def _mapping(node: MappingNode) -> dict[Scalar, YamlData]:
    """Return the pairs of a map, those of merged maps first."""
    merged: dict[Scalar, YamlData] = {}
    own: dict[Scalar, YamlData] = {}
    seen = set()
    for key_node, value_node in node.value:
        key = _key(key_node)
        if key in seen:
            raise _refused(key_node, f"{shown(key)} is given twice")
        seen.add(key)
        if key_node.tag == MERGE:
            merged = _merged(value_node)
        else:
            own[key] = _value(value_node)
    return merged | own


def _key(node: Node) -> Scalar:
    if isinstance(node, ScalarNode):
        return _scalar(node)
    if isinstance(node, MappingNode) and node.flow_style:
        raise _refused(node, "a map cannot be a key; a template such as {{ x }} is not filled in")
    raise _refused(node, "a list or a map cannot be a key")


def _merged(node: Node) -> dict[Scalar, YamlData]:
    """Return what ``<<`` merges: a map, or several, of which the earlier ones count."""
    maps = node.value if isinstance(node, SequenceNode) else [node]
    merged: dict[Scalar, YamlData] = {}
    for part in maps:
        if not isinstance(part, MappingNode):
            raise _refused(part, "<< merges maps, and this is none")
        _check_tag(part, MAP)
        merged = _mapping(part) | merged
    return merged


def _lines(node: Node, path: tuple[Scalar, ...] = ()) -> dict[tuple[Scalar, ...], int]:
    """Return the line of a value and of all that is in it; in a map the lines of its keys."""
    lines: dict[tuple[Scalar, ...], int] = {}
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            lines |= _lines(item, (*path, index))
    elif isinstance(node, MappingNode):
        for _, value_node in filter(_merges, node.value):
            maps = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for part in reversed(maps):
                lines |= _lines(part, path)
        for key_node, value_node in itertools.filterfalse(_merges, node.value):
            key = (*path, _key(key_node))
            lines |= _lines(value_node, key) | {key: _line(key_node)}
    return lines | {path: _line(node)}


def _merges(pair: tuple[Node, Node]) -> bool:
    return bool(pair[0].tag == MERGE)


def _refused(node: Node, problem: str) -> YamlError:
    return YamlError(problem, _line(node))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _too_long() -> YamlError:
    return YamlError(f"more than {MOST_BYTES >> 10} KiB")


def _code(character: int | str | bytes) -> str:
    number = character if isinstance(character, int) else ord(character)
    return f"U+{number:04X}"
