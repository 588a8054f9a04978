"""Constraints on the parameters of a sweep: `"fast < slow"`, `"slow - fast >= 10 and slow < 100"`.

A constraint is an expression of Python over names of parameters: numbers, + - * / // %, abs, min and max, comparisons,
which may be chained, and, or, not. It is parsed, checked node by node and computed on whole columns; nothing is
executed that the expression names.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np

from backtestr_engine.data.arrays import AnyArray, Booleans
from backtestr_protocol.errors import ValidationError, did_you_mean, quoted

PATH = "$.where"

MAX_CHARACTERS = 1_000
"""No constraint that a person writes is longer, and Python's parser takes this much in a millisecond."""

MAX_DEPTH = 30
"""No constraint that a person writes is nested deeper, and none that is less overflows Python's stack."""

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"abs": np.abs, "min": np.minimum, "max": np.maximum}
_ALLOWED = "numbers, parameters, + - * / // %, abs, min, max, comparisons, and, or, not"


class Constraint:
    """A checked expression; `names` are the parameters that it depends on."""

    def __init__(self, text: str, known: Iterable[str], truths: Collection[str] = ()) -> None:
        """Check a text over `known` parameters, of which `truths` are true or false and all others numbers.

        Raises `ValidationError` with what is wrong.
        """
        self.text = text
        self._known = list(known)
        self._truths = truths
        self._root = self._parse(text)
        self.names = frozenset(self._checked(self._root, truth=True))

    def __str__(self) -> str:
        return self.text

    def holds(self, columns: Mapping[str, AnyArray]) -> Booleans:
        """Return where the constraint holds; `columns` has a value per combination for each of `names`.

        A comparison with what has no value, as a division by zero, does not hold.
        """
        with np.errstate(all="ignore"):
            found: Booleans = np.asarray(_value(self._root, columns), dtype=np.bool_)
        return found

    def _parse(self, text: str) -> ast.expr:
        if not isinstance(text, str) or not text.strip():
            raise self._refused("it is empty; leave it out, or write one such as 'fast < slow'", text)
        if len(text) > MAX_CHARACTERS:
            raise self._refused(f"it has {len(text):,} characters, and may have {MAX_CHARACTERS:,}", text)
        try:
            return ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            at = "" if error.offset is None else f" at character {error.offset}"
            hint = "; equality is ==" if "=" in text and "==" not in text else ""
            raise self._refused(f"it cannot be read{at}: {error.msg}{hint}", text) from None
        except (ValueError, RecursionError, MemoryError):
            raise self._refused(
                "it cannot be read: it is nested too deeply, or has a character of no text", text
            ) from None

    def _checked(self, node: ast.expr, *, truth: bool, depth: int = 0) -> Iterator[str]:
        """Iterate over the names in a node, which is to be true or false, or else a number."""
        if depth > MAX_DEPTH:
            raise self._refused(f"it is nested more than {MAX_DEPTH} deep", self.text)
        below = depth + 1
        match node:
            case ast.BoolOp(values=values) if truth:
                for value in values:
                    yield from self._checked(value, truth=True, depth=below)
            case ast.UnaryOp(op=ast.Not(), operand=operand) if truth:
                yield from self._checked(operand, truth=True, depth=below)
            case ast.Compare(left=left, ops=operators, comparators=others) if truth:
                if unknown := [one for one in operators if type(one) not in _COMPARISONS]:
                    raise self._refused(f"'{_words(unknown[0])}' is no comparison: use < <= > >= == !=", self.text)
                for value in (left, *others):
                    yield from self._checked(value, truth=False, depth=below)
            case ast.Name(id=name):
                if name not in self._known:
                    near = did_you_mean(name, self._known)
                    raise self._refused(f"unknown parameter {name!r}{near} ({', '.join(self._known)})", self.text)
                if truth and name not in self._truths:
                    raise self._refused(f"{name} is a number: compare it, as in '{name} < 20'", self.text)
                yield name
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() | float() as number) if not truth:
                if abs(number) > 2**53:
                    raise self._refused(f"{quoted(number)} is beyond the range of a number", self.text)
            case ast.BinOp(left=left, op=op, right=right) if not truth and type(op) in _ARITHMETIC:
                yield from self._checked(left, truth=False, depth=below)
                yield from self._checked(right, truth=False, depth=below)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand) if not truth:
                yield from self._checked(operand, truth=False, depth=below)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if not truth and name in _FUNCTIONS:
                if len(arguments) != 1 if name == "abs" else len(arguments) < 2:
                    raise self._refused(f"{name} takes {'one value' if name == 'abs' else 'two or more'}", self.text)
                for argument in arguments:
                    yield from self._checked(argument, truth=False, depth=below)
            case _:
                part = ast.unparse(node)
                expected = "is neither true nor false: compare it, as in 'fast < slow'" if truth else "is not allowed"
                raise self._refused(f"{quoted(part)} {expected} (allowed: {_ALLOWED})", self.text)

    def _refused(self, reason: str, text: Any) -> ValidationError:
        return ValidationError(
            f"the constraint {quoted(text)} is refused: {reason}", path=PATH, got=quoted(text), reason=reason
        )


def _words(operator_node: ast.cmpop) -> str:
    return {ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not"}[type(operator_node)]


def _value(node: ast.expr, columns: Mapping[str, AnyArray]) -> Any:
    match node:
        case ast.BoolOp(op=op, values=values):
            parts = [np.asarray(_value(value, columns), dtype=np.bool_) for value in values]
            return reduce(np.logical_and if isinstance(op, ast.And) else np.logical_or, parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(_value(operand, columns))
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, columns)
            return -value if isinstance(op, ast.USub) else value
        case ast.Compare(left=left, ops=operators, comparators=others):
            values = [_value(value, columns) for value in (left, *others)]
            pairs = zip(operators, values, values[1:], strict=False)
            return reduce(np.logical_and, [_COMPARISONS[type(op)](one, other) for op, one, other in pairs])
        case ast.Name(id=name):
            column = columns[name]
            return column if column.dtype == np.bool_ else column.astype(np.float64)
        case ast.Constant(value=value):
            return value if isinstance(value, bool) else np.float64(value)  # type: ignore[arg-type]  # checked
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_number(left, columns), _number(right, columns))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return (
                reduce(_FUNCTIONS[name], [_number(one, columns) for one in arguments])
                if name != "abs"
                else np.abs(_number(arguments[0], columns))
            )
    raise AssertionError(f"{ast.dump(node)} was not checked")


def _number(node: ast.expr, columns: Mapping[str, AnyArray]) -> Any:
    """Return a value to compute with: true counts as 1."""
    return np.asarray(_value(node, columns), dtype=np.float64)
