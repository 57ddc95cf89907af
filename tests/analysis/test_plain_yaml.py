"""YAML as plain data, and what is refused with its line."""

from __future__ import annotations

import math
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from analysis.text.plain_yaml import (
    MOST_BYTES,
    MOST_DEPTH,
    MOST_VALUES,
    YamlError,
    parse_yaml,
    read_with_lines,
    read_yaml,
)


def refused(text: str) -> str:
    with pytest.raises(YamlError) as error:
        parse_yaml(text)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("42", 42),
        ("-7", -7),
        ("+5", 5),
        ("0", 0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b101", 5),
        (str(2**64 - 1), 2**64 - 1),
        ("1e-2", 0.01),
        ("1.e-4", 1e-4),
        ("+.5e-1", 0.05),
        ("2E3", 2000.0),
        ("1_000.5", 1000.5),
        ("00.5", 0.5),
        ("-.inf", -math.inf),
        ("2024-01-01", "2024-01-01"),
        ("2021-99-99", "2021-99-99"),
        ("1.2.3", "1.2.3"),
        ("1:99", "1:99"),
        ("=", "="),
        ("'0042'", "0042"),
        ('"1:30"', "1:30"),
        ("!!str 0042", "0042"),
        ("!!float 3", 3.0),
        ("!!int '3'", 3),
        ("[<<, a]", ["<<", "a"]),
        ('"<<": 3', {"<<": 3}),
        ("{1: a, null: b}", {1: "a", None: "b"}),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("\ufeffa: ü", {"a": "ü"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0042", ["'0042'", "write 42 for a number, or quotes for text"]),
        ("001", ["write 1 for"]),
        ("-007", ["write -7 for"]),
        ("08", ["write 8 for"]),
        ("00", ["write 0 for"]),
        ("1:30", ["'1:30'", "base 60", "quotes for text"]),
        ("16:32", ["base 60"]),
        ("190:20:30.15", ["base 60"]),
        ("9" * 5_000, ["too large"]),
        ("0x" + "f" * 5_000, ["too large"]),
        ("0b" + "1" * 70, ["too large"]),
        (str(2**64 + 1), ["18446744073709551617", "too large", "2**64"]),
    ],
)
def test_a_number_that_readers_disagree_on_or_that_is_too_large_is_refused(
    text: str, parts: list[str]
) -> None:
    message = refused(f"a: 1\nb: [{text}]")
    assert message.startswith("line 2: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("!!float abc", "'abc' is no value of !!float"),
        ("!!int ''", "'' is no value of !!int"),
        ("!!int 0042", "'0042' is no value of !!int"),
        ("!!bool maybe", "'maybe' is no value of !!bool"),
        ("!!null x", "'x' is no value of !!null"),
        ("!!timestamp foo", "the tag '!!timestamp' is not used"),
        ("!!timestamp 2021-01-01", "!!timestamp"),
        ("!!binary aGk=", "!!binary"),
        ("!!set {a}", "!!set"),
        ("!!omap [a: 1]", "!!omap"),
        ("!!pairs [a: 1]", "!!pairs"),
        ("!!python/object/apply:os.system [ls]", "!!python/object/apply:os.s"),
        ("!mine 3", "'!mine'"),
        ("!!map [a]", "!!map"),
        ("!!seq {a: 1}", "!!seq"),
        ("!!str [a]", "!!str"),
    ],
)
def test_a_tag_that_is_no_plain_data_is_refused(text: str, part: str) -> None:
    message = refused(f"- 1\n- {text}")
    assert message.startswith("line 2: ")
    assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("? [a, b]\n: c", "line 1: a list or a map cannot be a key"),
        ("? {a: b}\n: c", "line 1: a map cannot be a key"),
        ("a: {{ name }}", "line 1: a map cannot be a key; a template such as {{ x }}"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice"),
        ("{1: a, 1.0: b}", "'1.0' is given twice"),
        ("{<<: {a: 1}, <<: {b: 1}}", "'<<' is given twice"),
        ("{<<: 3}", "<< merges maps"),
        ("{<<: [{a: 1}, 3]}", "<< merges maps"),
        ("a: [", "line 1: not YAML"),
        ("a: b: c", "line 1: not YAML: mapping values are not allowed"),
        ("- a\n--- b", "line 2: not YAML: expected a single document"),
        ("*x", "line 1: not YAML: found undefined alias"),
        ("- &a 1\n- &a 2", "line 2: not YAML: found duplicate anchor"),
        ("a: 1\n\tb: 2", "line 2: not YAML"),
        ("%YAML 9.9\n---\na", "line 1: not YAML"),
        (f"%YAML {'9' * 5000}.1\n---\na", "line 1: not YAML"),
        ("a: 1\nb: \0", "line 2: not YAML: it has the character U+0000"),
        ("a\x1b[31m", "line 1: not YAML: it has the character U+001B"),
        ("\ud800", "U+D800"),
        (r'"\0"', "line 1: a text cannot have the character U+0000"),
        (r'"\ud800"', "line 1: a text cannot have half of a character"),
        (r'"\UFFFFFFFF"', "line 1: not YAML"),
        (r'"\U00110000"', "line 1: not YAML"),
        ("&a [*a]", "line 1: an alias inside of what it stands for"),
        ("&a {b: *a}", "line 1: an alias inside of what it stands for"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, part: str) -> None:
    assert part in refused(text)


def test_a_merged_map_gives_way_to_what_is_written_and_to_earlier_maps() -> None:
    text = """
    base: &base {a: 1, b: 2}
    other: &other {b: 3, c: 4}
    one: {<<: *base, b: 5}
    two: {d: 6, <<: [*base, *other]}
    three: &three {<<: *base, c: 7}
    four: {<<: *three, a: 8}
    """
    found = parse_yaml(text)
    assert found["one"] == {"a": 1, "b": 5}
    assert found["two"] == {"a": 1, "b": 2, "c": 4, "d": 6}
    assert found["four"] == {"a": 8, "b": 2, "c": 7}
    found["one"]["a"] = 9
    assert found["base"]["a"] == 1, "an alias is a copy"


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 3_000, f"more than {MOST_DEPTH} lists and maps in one another"),
        ("- " * 3_000, f"more than {MOST_DEPTH} lists"),
        ("{a: " * 3_000, f"more than {MOST_DEPTH} lists"),
        ("? " * 3_000, f"more than {MOST_DEPTH} lists"),
        ("- 1\n" * 20_000, "line 10000: more than 10,000 values"),
        (BOMB, f"more than {MOST_VALUES:,} values, aliases spelt out"),
        ("a: &a {x: 1}\nb: {<<: [" + "*a," * 9_000 + "]}", "more than"),
        ("#" * (MOST_BYTES + 1), "more than 512 KiB"),
    ],
)
def test_a_text_without_bounds_is_refused_at_once(text: str, part: str) -> None:
    started_s = time.process_time()
    assert part in refused(text)
    assert time.process_time() - started_s < 3


def test_what_a_list_or_a_map_may_have() -> None:
    assert len(parse_yaml("- 1\n" * (MOST_VALUES - 1))) == MOST_VALUES - 1
    nested = parse_yaml("[" * (MOST_DEPTH - 1) + "1" + "]" * (MOST_DEPTH - 1))
    for _ in range(MOST_DEPTH - 1):
        (nested,) = nested
    assert nested == 1


def test_what_is_no_file_of_text_is_refused_at_once(tmp_path: Path) -> None:
    def problem(path: Path) -> str:
        with pytest.raises(YamlError) as error:
            read_yaml(path)
        return str(error.value)

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        assert problem(path) == "cannot be read: it is not a file"
    assert problem(tmp_path / "absent") == "cannot be read: No such file or directory"
    assert problem(Path("x" * 300)) == "cannot be read: File name too long"
    assert "null byte" in problem(Path("a\0b"))
    file = tmp_path / "file"
    file.write_bytes(b"a: \xff")
    assert problem(file) == "is not UTF-8: invalid start byte"
    file.write_bytes("ä".encode() * MOST_BYTES)
    assert problem(file) == "more than 512 KiB"
    file.write_bytes(b"a: \xc3\xa4\r\nb: 1")
    assert read_yaml(file) == {"a": "ä", "b": 1}


def test_the_lines_of_all_parts_are_known(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(
        """\
base: &base
  a: 1
  b: 2
list:
  - x
  -
    <<: [{c: 3, b: 4}, *base]
    a: 5
  - {d: [6,
         7]}
again: *base
"""
    )
    data, lines = read_with_lines(file)
    assert data["list"][1] == {"c": 3, "b": 4, "a": 5}
    assert lines == {
        (): 1,
        ("base",): 1, ("base", "a"): 2, ("base", "b"): 3,
        ("list",): 4, ("list", 0): 5,
        ("list", 1): 7, ("list", 1, "c"): 7, ("list", 1, "b"): 7, ("list", 1, "a"): 8,
        ("list", 2): 9, ("list", 2, "d"): 9, ("list", 2, "d", 0): 9, ("list", 2, "d", 1): 10,
        ("again",): 11, ("again", "a"): 2, ("again", "b"): 3,
    }  # fmt: skip


def test_an_empty_file_has_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("# nothing\n")
    assert read_with_lines(file) == (None, {(): 1})
