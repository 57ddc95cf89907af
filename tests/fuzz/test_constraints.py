"""Constraints that nobody would write: a `UserError`, or the value that Python gives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sweeps.spec.constraints import FUNCTIONS, holds
from tests.fuzz import guard
from trainables.errors import UserError

SETTINGS = {"n_embd": 32, "learning_rate": 0.01, "pe_type": "rope", "dropout": None, "seed": 0}
ARITHMETIC = ["+", "-", "*", "/", "//", "%", "**"]
COMPARISONS = ["<", "<=", ">", ">=", "==", "!=", "in", "not in"]
FORBIDDEN = [
    *("{}[{}]", "{}[{}:9]", "{}.real", "{}.zfill({})", "{}({})", "lambda: {}", "f'{{{}}}'"),
    *("[{} for a in {}]", "{} if {} else 1", "({}, *{})", "{{{}: {}}}", "{} @ {}", "{} << {}"),
    *("{} is {}", "~{}", "str({})", "list({})", "max({}, key={})", "(a := {})", "{}; {}", "{}j"),
]

finite = st.one_of(
    st.integers(-100, 100), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
numbers = finite.map(repr) | st.sampled_from(["4000000", "1e308", "1e999"])
leaves = st.one_of(numbers, st.text(max_size=9).map(repr), st.sampled_from([*SETTINGS, "True"]))


def larger(parts: SearchStrategy[str]) -> SearchStrategy[str]:
    """Expressions of expressions, in all ways that a constraint may have."""
    pairs = st.tuples(parts, st.sampled_from([*ARITHMETIC, *COMPARISONS, "and", "or"]), parts)
    chains = st.tuples(parts, *[st.sampled_from(COMPARISONS), parts] * 2)
    signs = st.tuples(st.sampled_from(["-", "+", "not "]), parts)
    several = st.lists(parts, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        *(words.map(" ".join).map("({})".format) for words in (pairs, chains, signs)),
        st.builds("{}({})".format, st.sampled_from([*FUNCTIONS]), several),
        several.map("[{}]".format),
    )


def larger_or_forbidden(parts: SearchStrategy[str]) -> SearchStrategy[str]:
    forbidden = st.builds(str.format, st.sampled_from(FORBIDDEN), parts, parts)
    return larger(parts) | forbidden


permitted = st.recursive(leaves, larger, max_leaves=12)
anything = st.one_of(
    permitted,
    st.recursive(leaves, larger_or_forbidden, max_leaves=40),
    st.text(),
    st.text("()[]{}-+*/%<>=!.,:'\"\\#@~ \n\t\0inot0129eEjx_fr", max_size=1_200),
    st.builds(lambda part, n, end: part * n + end,
              st.sampled_from(["(", "[", "-", "not ", "~", "1+", "9**", "[[", "a(", "a.", "1<"]),
              st.integers(1, 2_000), leaves),
)  # fmt: skip


@guard.efforts
def test_only_the_users_error_comes_out(effort: settings) -> None:
    guard.fuzz(effort, anything, lambda text: holds(text, SETTINGS), UserError)


@guard.efforts
def test_a_value_is_pythons_own(effort: settings) -> None:
    @effort
    @given(permitted)
    def check(text: str) -> None:
        try:
            value = holds(text, SETTINGS)
        except UserError:
            return  # Python may take what is refused here, for a number of 2,000 bits say
        assert value is eval(text, {"__builtins__": FUNCTIONS}, SETTINGS)

    check()
