"""Formulas of the ledger: `(before - after) / before`, over named figures, and nothing else.

Parsed as Python and walked by hand: numbers, names, + - * / ** and the functions min, max and ceil.
Anything else is an error of the ledger. Nothing is evaluated as code.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from bench.core.errors import DataError

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "ceil": math.ceil}
_MOST_CHARACTERS = 300


def names_in(formula: str) -> set[str]:
    """Names of figures that a formula uses."""
    found = {node.id for node in ast.walk(_parsed(formula)) if isinstance(node, ast.Name)}
    return found - set(_FUNCTIONS)


def compute(formula: str, figures: Mapping[str, float]) -> float:
    """Value of a formula; `DataError` for one that cannot be computed."""
    try:
        return _value(_parsed(formula).body, figures)
    except (ZeroDivisionError, OverflowError, KeyError) as error:
        raise DataError(f"formula {formula!r} cannot be computed: {error!r}") from None


def _parsed(formula: str) -> ast.Expression:
    if len(formula) > _MOST_CHARACTERS:
        raise DataError(f"formula longer than {_MOST_CHARACTERS} characters")
    try:
        return ast.parse(formula, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        raise DataError(f"formula {formula!r} cannot be read") from None


def _value(node: ast.expr, figures: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return figures[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        sides = _value(node.left, figures), _value(node.right, figures)
        return float(_OPERATORS[type(node.op)](*sides))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name, values = node.func.id, [_value(argument, figures) for argument in node.args]
        if name in _FUNCTIONS and (len(values) == 1) == (name == "ceil") and values:
            return float(_FUNCTIONS[name](*values))
    raise DataError(f"formulas have numbers, names, + - * / ** and {', '.join(_FUNCTIONS)} only")
