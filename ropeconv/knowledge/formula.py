"""Formulas over a config's keys: how a family says its sizes, and which of its layers rotate.

A formula is an expression of Python's syntax, read and never executed:

    names            keys of the config, letters of sizes, and `layer`
    table.key        a key of a nested table; an absent table or key is None
    keys[layer]      an entry of a list, one for each layer; or of a table by its key, where a
                     number may be written with leading zeros, and an absent key is None
    {}               a table without entries
    a or b           a, unless it is None, false or zero
    + - * // %       arithmetic; == != < in not, a if c else b
    int(x)           x rounded down
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from ropeconv.words.errors import Contradiction

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.In: lambda one, many: one in many,
}


def evaluate(formula: str, names: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a JSON value
    """The value of a formula; a name that is not there is None.

    >>> evaluate("head_dim or C // H", {"C": 60, "H": 6})
    10
    >>> evaluate("int(D * (rope.factor or 0.5))", {"D": 10, "rope": {"factor": 0.65}})
    6

    Raises:
        Contradiction: the config's values do not fit the formula, a list that is too short for
            example.
    """
    try:
        return _value(_parse(formula), names)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise Contradiction(
            what=f"the config does not give `{formula}`",
            why=f"{type(error).__name__}: {error}".lower()[:200],
            fix="the keys it names are missing or of the wrong kind",
        ) from error


def complaint(formula: str) -> str:
    """What keeps a text from being an expression; empty if nothing does.

    >>> complaint("head_dim * (")
    "'(' was never closed"
    """
    try:
        _parse(formula)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return error.msg if isinstance(error, SyntaxError) else str(error) or "it is too long"
    return ""


def solve(formulas: Iterable[tuple[str, str]], names: Mapping[str, Any]) -> dict[str, Any]:
    """Every letter whose formula has a value, whatever the order in which they need each other.

    >>> solve([("D", "head_dim or C // H"), ("C", "hidden"), ("H", "heads")],
    ...       {"hidden": 60, "heads": 6})
    {'C': 60, 'H': 6, 'D': 10}
    """
    found: dict[str, Any] = {}
    waiting = dict(formulas)
    for _ in range(len(waiting)):
        for letter, formula in list(waiting.items()):
            try:
                value = evaluate(formula, {**names, **found})
            except Contradiction:
                continue
            if value is not None:
                found[letter] = value
                del waiting[letter]
    return found


@lru_cache(maxsize=1024)
def _parse(formula: str) -> ast.expr:
    return ast.parse(formula, mode="eval").body


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:  # noqa: ANN401
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=table, attr=key):
            found = _value(table, names)
            return found.get(key) if isinstance(found, Mapping) else None
        case ast.Subscript(value=many, slice=at):
            return _entry(_value(many, names), _value(at, names))
        case ast.BoolOp(op=ast.Or(), values=values):
            found = [_value(value, names) for value in values[:1]]
            return found[0] or _rest(values[1:], names)
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(value, names) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](_value(left, names), _value(right, names))
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, names) else other, names)
        case ast.Dict(keys=[]):
            return {}
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            return tuple(_value(element, names) for element in elts)
        case ast.Call(func=ast.Name(id="int"), args=[argument], keywords=[]):
            return int(_value(argument, names))
        case _:
            raise ValueError(f"`{ast.unparse(node)[:80]}` has no meaning in a formula")


def _entry(many: Any, at: Any) -> Any:  # noqa: ANN401
    if not isinstance(many, Mapping):
        return many[at]
    if not isinstance(at, int):
        return many.get(at)
    return next((many[key] for key in many if str(key).isdecimal() and int(key) == at), None)


def _rest(values: list[ast.expr], names: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if len(values) == 1:
        return _value(values[0], names)
    return _value(values[0], names) or _rest(values[1:], names)
