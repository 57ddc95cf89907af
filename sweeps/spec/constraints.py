"""Constraints of a search: expressions over the settings of a trial that must be true.

An expression has numbers, text and settings; arithmetic on numbers; comparisons, and, or, not, in;
min, max and abs. All of these are bounded, so no expression takes much time or memory.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from simpleeval import DEFAULT_OPERATORS, EvalWithCompoundTypes, InvalidExpression

from trainables.errors import UserError

MAX_LENGTH = 1_000  # characters of an expression
MAX_DEPTH = 50  # of its tree
MAX_BITS = 1_024  # of a whole number: a float has no larger ones
SHOWN = 60  # characters of an expression in a message

FUNCTIONS = {"min": min, "max": max, "abs": abs}
Number = int | float


def _arithmetic(
    calculate: Callable[[Number, Number], object],
) -> Callable[[object, object], Number]:
    """Return the operator for numbers only, so that it cannot format, repeat or join text."""

    def operate(a: object, b: object) -> Number:
        if not isinstance(a, Number) or not isinstance(b, Number):
            raise TypeError("arithmetic is for numbers")
        return _bounded(calculate(a, b))

    return operate


def _power(base: Number, exponent: Number) -> object:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits((base.bit_length() - 1) * exponent)  # the power has at least so many
    return base**exponent


def _bounded(number: object) -> Number:
    """Return a real number unchanged, if it is not too large."""
    if not isinstance(number, Number):
        raise TypeError(f"{number} is no real number")
    if isinstance(number, int):
        _check_bits(number.bit_length())
    return number


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise OverflowError(f"a number has more than {MAX_BITS} bits")


OPERATORS: dict[type[ast.AST], Callable[..., object]] = {
    ast.Add: _arithmetic(operator.add),
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _arithmetic(operator.floordiv),
    ast.Mod: _arithmetic(operator.mod),
    ast.Pow: _arithmetic(_power),
    **{
        kind: DEFAULT_OPERATORS[kind]
        for kind in (
            *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
            *(ast.Not, ast.USub, ast.UAdd),
        )
    },
}
PARTS = (
    *(ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.List, ast.Tuple, ast.Set, ast.Load, *OPERATORS),
)
EVALUATION_ERRORS = (InvalidExpression, ArithmeticError, TypeError, ValueError)


def names_in(text: str) -> set[str]:
    """Return the settings that a constraint names.

    Raises:
        UserError: the text is no expression, or has parts that a constraint cannot have.
    """
    return {node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)} - {*FUNCTIONS}


def holds(text: str, settings: Mapping[str, object]) -> bool:
    """Return whether a trial satisfies a constraint; it does if it lacks a setting named there.

    Args:
        text: the constraint, such as ``n_embd * block_size <= 8192``.
        settings: of the trial, by short name.

    Raises:
        UserError: the expression cannot be evaluated, or is neither true nor false.
    """
    tree = _parse(text)
    if not names_in(text) <= settings.keys():
        return True
    evaluator = EvalWithCompoundTypes(OPERATORS, dict(FUNCTIONS), dict(settings))
    try:
        value = evaluator.eval(text, previously_parsed=tree)
    except EVALUATION_ERRORS as error:
        raise UserError(f"{_shown(text)} cannot be evaluated: {error}") from None
    if not isinstance(value, bool):
        raise UserError(
            f"{_shown(text)} gives {value!r}; write a comparison, which is true or false"
        )
    return value


def broken(constraints: Iterable[str], settings: Mapping[str, object]) -> str:
    """Return the first constraint that a trial does not satisfy, or an empty text.

    Raises:
        UserError: a constraint cannot be evaluated.
    """
    return next((text for text in constraints if not holds(text, settings)), "")


@lru_cache
def _parse(text: str) -> ast.expr:
    """Return the syntax tree of an expression whose parts are all permitted."""
    shown = _shown(text)
    if len(text) > MAX_LENGTH:
        raise UserError(
            f"{shown} has {len(text)} characters; write several of {MAX_LENGTH} at most"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in text
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{shown} is no expression: {reason or 'it is nested too deep'}") from None
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        for node in level:
            if problem := _problem(node):
                part = ast.get_source_segment(text.strip(), node) or type(node).__name__
                raise UserError(f"{shown}: {_shown(part)} {problem}")
        level = [child for node in level for child in _operands(node)]
    if level:
        raise UserError(f"{shown} is nested too deep; write it with fewer brackets, or as several")
    return tree


def _operands(node: ast.AST) -> list[ast.AST]:
    """Return the children of a node, without the name of a function."""
    return list(node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node))


def _problem(node: ast.AST) -> str:
    """Return why a constraint cannot have this node, or an empty text."""
    functions = ", ".join(FUNCTIONS)
    if isinstance(node, ast.Call):
        is_known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        return "" if is_known and not node.keywords else f"cannot be called; there are {functions}"
    if isinstance(node, ast.Name):
        return "is a function; write its arguments in brackets" if node.id in FUNCTIONS else ""
    if isinstance(node, ast.Constant):
        return "" if isinstance(node.value, str | int | float | None) else "is no number or text"
    if isinstance(node, PARTS):
        return ""
    return f"is not allowed; there are arithmetic, comparisons, and, or, not, in, {functions}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
