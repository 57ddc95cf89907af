"""Expressions that must be true of a trial: what they may say, and what is refused at once."""

from __future__ import annotations

import pytest

from sweeps.spec.constraints import MAX_DEPTH, MAX_LENGTH, holds, names_in
from tests.fuzz import guard
from tests.sweeps.searches import SWEEP, plan
from trainables.errors import UserError

SETTINGS = {"n_embd": 32, "rate": 0.01, "pe_type": "rope", "seed": 1337}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n_embd * 8 <= 256", True),
        ("n_embd ** 2 / 4 - 1 == 255.0 and n_embd // 5 % 4 == 2", True),
        ("16 < n_embd < 32", False),
        ("pe_type in ['rope', 'randn'] and pe_type not in {'sinpe'}", True),
        ("not (n_embd > 8 or 'ro' in pe_type)", False),
        ("max(n_embd, 64) == 64 and min(1, -rate) == -0.01 and abs(-2) == 2", True),
        ("2 ** 1000 > 10 ** 300", True),
        ("2 ** -1_000_000_000 == 0", True),
        ("1 ** 10 ** 300 == 1", True),
        ("1e999 > 0", True),
        ("another_setting < 0", True),  # of other arms
    ],
)
def test_an_expression_has_the_value_that_python_gives(text: str, value: bool) -> None:
    assert holds(text, SETTINGS) is value


REFUSED = {
    "4000000**4000000 > 0": "more than 1024 bits",
    "9**100000*9**100000 > 0": "more than 1024 bits",
    "9**9**9**9 > 0": "more than 1024 bits",
    "2**1023 * 2**1023 > 0": "more than 1024 bits",
    "(-8) ** 0.5 < 1": "no real number",
    "[[1]*99999]*99999 == 1": "arithmetic is for numbers",
    "'a' * 99999 == 'a'": "arithmetic is for numbers",
    "'a' + 'b' == 'ab'": "arithmetic is for numbers",
    '"%999999999d" % seed == 1': "arithmetic is for numbers",
    '"a".zfill(999999999) == 1': "'\"a\".zfill(999999999)' cannot be called; there are min",
    "'{:>999999999}'.format(seed) == 1": "cannot be called",
    "f'{seed:>999999999}' == 1": "is not allowed; there are arithmetic, comparisons",
    "seed.real == 1": "'seed.real' is not allowed",
    "'abc'[seed] == 1": "is not allowed",
    "[a for a in pe_type] == 1": "is not allowed",
    "1 if seed else 2": "is not allowed",
    "(seed := 1) == 1": "is not allowed",
    "seed << 999999999 > 0": "is not allowed",
    "lambda: seed": "is not allowed",
    "seed is 1337": "'Is' is not allowed",
    "1j == seed": "'1j' is no number or text",
    "b'a' == pe_type": "is no number or text",
    "list(seed) == 1": "cannot be called",
    "max(seed, key=1) == 1": "cannot be called",
    "max(*[1, 2]) == 1": "'*[1, 2]' is not allowed",
    "max == 1": "'max' is a function; write its arguments",
    "1 / (seed - 1337) > 0": "division by zero",
    "10.0 ** 400 > 0": "cannot be evaluated",
    "n_embd < pe_type": "cannot be evaluated",
    "min() == 1": "cannot be evaluated",
    "{[1]} == 1": "cannot be evaluated",
    "n_embd": "gives 32; write a comparison",
    "": "is no expression",
    "n_embd <": "is no expression",
    "n_embd = 3": "is no expression",
    "n_embd < 3\0": "is no expression: source code string cannot contain null bytes",
    "n_embd < '\ud800'": "is no expression",
    "not " * 5_000 + "seed": "20004 characters; write several of 1000 at most",
    "not " * 240 + "seed": "is nested too deep",
    "-" * (MAX_LENGTH - 1) + "1": "is nested too deep",
    "(" * 199 + "-1" + ")" * 199 + "+1" * 99 + "> 0": "is nested too deep",
    "[" * 300 + "]" * 300: "is no expression: too many nested parentheses",
    "-" * (MAX_DEPTH + 1) + "1 > 0": "is nested too deep",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_constraint_is_refused_at_once(text: str) -> None:
    with pytest.raises(UserError) as refused:
        holds(text, SETTINGS)
    assert REFUSED[text] in str(refused.value)
    assert len(str(refused.value)) < 250
    guard.only(UserError, lambda: holds(text, SETTINGS))


def test_what_is_refused_names_its_place_in_the_sweep_file() -> None:
    text = SWEEP.replace("trials: 20", "constraints: ['n_embd > 1', '4000000**4000000 > 0']")
    with pytest.raises(UserError, match=r"test: search.constraints\[1\]: '4000000\*\*4000000 > 0'"):
        plan(text)


def test_a_long_sum_and_many_conditions_are_not_deep() -> None:
    assert holds(" and ".join(["seed == 1337"] * 55), SETTINGS)
    assert not holds(" < ".join(["seed"] * 140), SETTINGS)
    assert holds(" + ".join(["seed"] * 40) + " > 0", SETTINGS)


def test_names_are_those_of_settings_only() -> None:
    assert names_in("max(n_embd, 3) * rate < 5 and pe_type in ['x']") == {
        "n_embd", "rate", "pe_type"
    }  # fmt: skip
