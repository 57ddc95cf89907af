"""Constraints of a search: expressions over the settings of a trial that must be true."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

from trainables.errors import UserError

EVALUATION_ERRORS = (
    *(InvalidExpression, ArithmeticError, AttributeError),
    *(LookupError, TypeError, ValueError),
)
FUNCTIONS = {"min": min, "max": max, "abs": abs}


def names_in(text: str) -> set[str]:
    """The settings that a constraint speaks of.

    Raises:
        UserError: it is no expression.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise UserError(f"{text!r} is no expression: {error.msg}") from None
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - FUNCTIONS.keys()


def holds(text: str, settings: Mapping[str, Any]) -> bool:
    """Whether a trial may be; one that lacks a setting that the constraint speaks of may.

    Args:
        text: such as ``n_embd * block_size <= 8192``; arithmetic, comparisons, and/or/not/in.
        settings: of the trial, by short name.

    Raises:
        UserError: the expression cannot be evaluated, or is neither true nor false.
    """
    if not names_in(text) <= settings.keys():
        return True
    try:
        value = EvalWithCompoundTypes(names=dict(settings), functions=FUNCTIONS).eval(text.strip())
    except EVALUATION_ERRORS as error:
        raise UserError(f"{text!r} cannot be evaluated: {error}") from None
    if not isinstance(value, bool):
        raise UserError(f"{text!r} gives {value!r}; write a comparison, which is true or false")
    return value
