"""Filters: expressions compiled once per query into closures over a document.

A closure takes the document as parsed JSON (not decoded: a filter looks at few fields, and decodes what it looks at) and returns a value, or
``UNDEFINED``. Source: ``runtime.md`` section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from convex_backend.database.index_range import trim_path
from convex_backend.errors import BadRequest
from convex_backend.values.json_codec import from_json
from convex_backend.values.kinds import INT64_MAX, INT64_MIN, UNDEFINED, InvalidValue, type_name
from convex_backend.values.sort_key import encode_value
from convex_backend.values.text import value_text

#: The document as ``orjson.loads`` gives it → a value or ``UNDEFINED``.
Evaluator = Callable[[dict[str, Any]], Any]

MAX_DEPTH: Final = 256


def _error(message: str) -> BadRequest:
    return BadRequest("EvalError", message)


def _shown(value: Any) -> str:
    return "undefined" if value is UNDEFINED else value_text(value)


def as_boolean(value: Any) -> bool:
    """:raises BadRequest: ``EvalError``, the value is not a boolean."""
    if type(value) is bool:
        return value
    raise _error(f"Cannot use value {_shown(value)} (type {type_name(value)}) as a Boolean")


# -- comparison ---------------------------------------------------------------------------------

_PLAIN: Final = frozenset((str, int, bool))


def _equal(left: Any, right: Any) -> bool:
    kind = type(left)
    if kind is not type(right):
        return False
    if kind in _PLAIN:
        return bool(left == right)
    if left is right:
        return True
    return encode_value(left) == encode_value(right)


def _less(left: Any, right: Any) -> bool:
    if type(left) is int and type(right) is int:
        return left < right
    if type(left) is float and type(right) is float and left < right:
        return True
    return encode_value(left) < encode_value(right)


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": _equal,
    "$neq": lambda left, right: not _equal(left, right),
    "$lt": _less,
    "$lte": lambda left, right: not _less(right, left),
    "$gt": lambda left, right: _less(right, left),
    "$gte": lambda left, right: not _less(left, right),
}


# -- arithmetic ---------------------------------------------------------------------------------


def _divide_floats(left: float, right: float) -> float:
    if right == 0.0:
        if left == 0.0 or math.isnan(left):
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1.0, right)
    return left / right


def _multiply_floats(left: float, right: float) -> float:
    return left * right


def _remainder_floats(left: float, right: float) -> float:
    return math.nan if right == 0.0 or math.isinf(left) else math.fmod(left, right)


def _truncated(left: int, right: int) -> int:
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


_INTEGERS: Final[dict[str, Callable[[int, int], int]]] = {
    "add": lambda left, right: left + right,
    "subtract": lambda left, right: left - right,
    "multiply": lambda left, right: left * right,
    "divide": _truncated,
    "mod": lambda left, right: left - right * _truncated(left, right),
}
_FLOATS: Final[dict[str, Callable[[float, float], float]]] = {
    "add": lambda left, right: left + right,
    "subtract": lambda left, right: left - right,
    "multiply": _multiply_floats,
    "divide": _divide_floats,
    "mod": _remainder_floats,
}
_VERBS: Final = {"$add": "add", "$sub": "subtract", "$mul": "multiply", "$div": "divide", "$mod": "mod"}


def _arithmetic(verb: str, left: Any, right: Any) -> Any:
    kind = type(left)
    if kind is float and type(right) is float:
        return _FLOATS[verb](left, right)
    if kind is int and type(right) is int:
        if right == 0 and verb in ("divide", "mod"):
            raise _error(f"Cannot {verb} {value_text(left)} by zero")
        result = _INTEGERS[verb](left, right)
        # Rust's checked remainder overflows where the quotient does.
        if not INT64_MIN <= result <= INT64_MAX or (verb == "mod" and left == INT64_MIN and right == -1):
            raise _error(
                f"Cannot {verb} {value_text(left)} and {value_text(right)}: the result is out of range for Int64"
            )
        return result
    raise _error(f"Cannot {verb} {_shown(left)} (type {type_name(left)}) and {_shown(right)} (type {type_name(right)})")


def _negate(value: Any) -> Any:
    if type(value) is float:
        return -value
    if type(value) is int:
        if value == INT64_MIN:
            raise _error(f"Cannot negate {value_text(value)}: the result is out of range for Int64")
        return -value
    raise _error(f"Cannot negate {_shown(value)} (type {type_name(value)})")


# -- compilation --------------------------------------------------------------------------------


def _leaf(member: Any) -> Any:
    kind = type(member)
    if kind is str or kind is float or kind is bool or member is None:
        return member
    return from_json(_copied(member), allow_commit_ts=True)


def _copied(tree: Any) -> Any:
    """A copy of the containers, because decoding consumes them and the next field may look at the same ones."""
    if type(tree) is dict:
        return {name: _copied(member) for name, member in tree.items()}
    if type(tree) is list:
        return [_copied(element) for element in tree]
    return tree


def _field(path: str) -> Evaluator:
    names = trim_path(path).split(".")
    if len(names) == 1:
        name = names[0]

        def top(document: dict[str, Any]) -> Any:
            if name not in document:
                return UNDEFINED
            return _leaf(document[name])

        return top

    def nested(document: dict[str, Any]) -> Any:
        current: Any = document
        for step in names:
            if type(current) is not dict or step not in current:
                return UNDEFINED
            current = current[step]
        return _leaf(current)

    return nested


def _comparison(compare: Callable[[Any, Any], bool], left: Evaluator, right: Evaluator) -> Evaluator:
    return lambda document: compare(left(document), right(document))


def _binary(verb: str, left: Evaluator, right: Evaluator) -> Evaluator:
    return lambda document: _arithmetic(verb, left(document), right(document))


def _all(operands: list[Evaluator]) -> Evaluator:
    return lambda document: all(as_boolean(operand(document)) for operand in operands)


def _any(operands: list[Evaluator]) -> Evaluator:
    return lambda document: any(as_boolean(operand(document)) for operand in operands)


def _invalid(reason: str) -> BadRequest:
    return BadRequest("InvalidArgument", f"Invalid filter expression: {reason}")


def compile_expression(tree: Any, depth: int = 0) -> Evaluator:
    """Compile one expression.

    :param tree: parsed JSON of the expression.
    :raises BadRequest: it is not an expression.
    """
    if type(tree) is not dict or len(tree) != 1:
        raise _invalid("expected an object with one operator")
    if depth > MAX_DEPTH:
        raise _invalid("nested too deeply")
    ((operator, operand),) = tree.items()
    if operator == "$field":
        if type(operand) is not str:
            raise _invalid("$field must be a string")
        return _field(operand)
    if operator == "$literal":
        try:
            value = from_json(_copied(operand), allow_undefined=True)
        except InvalidValue as error:
            raise BadRequest(error.code, error.message) from None
        return lambda document: value
    if operator in ("$neg", "$not"):
        inner = compile_expression(operand, depth + 1)
        if operator == "$neg":
            return lambda document: _negate(inner(document))
        return lambda document: not as_boolean(inner(document))
    if type(operand) is not list:
        raise _invalid(f"{operator} must be an array")
    operands = [compile_expression(each, depth + 1) for each in operand]
    if operator == "$and":
        return _all(operands)
    if operator == "$or":
        return _any(operands)
    if len(operands) != 2:
        raise _invalid(f"{operator} takes two operands")
    if operator in _COMPARISONS:
        return _comparison(_COMPARISONS[operator], *operands)
    if operator in _VERBS:
        return _binary(_VERBS[operator], *operands)
    raise _invalid(f"unknown operator {operator}")
