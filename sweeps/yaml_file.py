"""Reading YAML as people write it today."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import UserError


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` that reads 1e-2 as a number (as YAML 1.2) and refuses doubled keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise UserError(f"line {line}: {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        UserError: it is not YAML, or gives a key twice; the message names the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{line}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        UserError: it cannot be read or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8: {error.reason}") from None
    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
