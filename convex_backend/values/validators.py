"""Validators: parse their JSON, check arguments and results.

Source: ``runtime.md`` section 4.7, ``push.md`` section 6.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import orjson

from convex_backend.errors import BadRequest
from convex_backend.values.json_codec import from_json
from convex_backend.values.kinds import CommitTimestamp, Value
from convex_backend.values.limits import identifier_error
from convex_backend.values.text import value_text
from convex_backend.values.validator_kinds import (
    AnyValidator,
    ArrayValidator,
    IdValidator,
    LiteralValidator,
    ObjectValidator,
    RecordValidator,
    TableNames,
    TypeValidator,
    UnionValidator,
    Validator,
)

__all__ = [
    "ANY",
    "AnyValidator",
    "ArrayValidator",
    "IdValidator",
    "InvalidValidator",
    "LiteralValidator",
    "ObjectValidator",
    "RecordValidator",
    "TableNames",
    "TypeValidator",
    "UnionValidator",
    "Validator",
    "parse",
    "parse_args",
    "parse_returns",
    "parse_text",
    "validate_args",
    "validate_returns",
]

_MISSING: Final = object()


class InvalidValidator(BadRequest):
    """The JSON of a validator is malformed or breaks a rule; ``message`` has no prefix."""

    def __init__(self, message: str) -> None:
        super().__init__("InvalidValidator", message)


ANY: Final = AnyValidator()
_SIMPLE: Final[dict[str, Validator]] = {
    "any": ANY,
    "map": ANY,  # removed types: what was declared with them is not checked
    "set": ANY,
    "null": TypeValidator("null", "null", type(None)),
    "boolean": TypeValidator("boolean", "boolean", bool),
    "string": TypeValidator("string", "string", str),
    "bytes": TypeValidator("bytes", "bytes", bytes),
    "number": TypeValidator("number", "float64", float),
    "bigint": TypeValidator("bigint", "int64", int),
    "commitTs": TypeValidator("commitTs", "commitTs", int, CommitTimestamp),
}
_COMPOSITE: Final = ("id", "literal", "array", "record", "object", "union")
_KIND_NAMES: Final[dict[type, str]] = {dict: "an object", list: "an array", str: "a string"}
_MAX_DEPTH: Final = 200  # far above what values allow; keeps the walk off Python's recursion limit


def _member(tree: dict[str, Any], name: str, kind: type) -> Any:
    member = tree.get(name, _MISSING)
    if member is _MISSING:
        raise InvalidValidator(f"missing field `{name}`")
    if type(member) is not kind:
        raise InvalidValidator(f"`{name}` of a validator must be {_KIND_NAMES[kind]}")
    return member


def _field(tree: object, depth: int) -> tuple[Validator, bool]:
    if type(tree) is not dict:
        raise InvalidValidator("a field of an object validator must be an object")
    optional = tree.get("optional", False)
    if type(optional) is not bool:
        raise InvalidValidator("`optional` of a validator must be a boolean")
    return _parse(_member(tree, "fieldType", dict), depth + 1), optional


def _check_record_keys(keys: Validator) -> None:
    if isinstance(keys, UnionValidator):
        for member in keys.members:
            _check_record_keys(member)
    elif isinstance(keys, LiteralValidator) and isinstance(keys.literal, str):
        raise InvalidValidator("Records cannot have string literal keys")
    elif not (isinstance(keys, IdValidator) or keys is _SIMPLE["string"]):
        raise InvalidValidator(f"Records can only have string keys. Found {keys.text}.")


def _identifier(name: str) -> str:
    error = identifier_error(name)
    if error:
        raise InvalidValidator(error)
    return name


def _parse_literal(tree: dict[str, Any]) -> Validator:
    literal = from_json(tree.get("value"))
    if type(literal) not in (str, bool, int, float):
        raise InvalidValidator(f"{value_text(literal)} is not a valid literal: use a string, boolean, number or bigint")
    return LiteralValidator(literal)


def _parse(tree: Any, depth: int) -> Validator:
    if type(tree) is not dict:
        raise InvalidValidator("a validator must be an object")
    if depth > _MAX_DEPTH:
        raise InvalidValidator(f"Validator is too nested (more than {_MAX_DEPTH} levels)")
    kind = _member(tree, "type", str)
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple
    if kind == "id":
        return IdValidator(_identifier(_member(tree, "tableName", str)))
    if kind == "literal":
        return _parse_literal(tree)
    if kind == "array":
        return ArrayValidator(_parse(_member(tree, "value", dict), depth + 1))
    if kind == "object":
        members = _member(tree, "value", dict)
        return ObjectValidator({_identifier(name): _field(field, depth) for name, field in members.items()})
    if kind == "union":
        return UnionValidator(tuple(_parse(member, depth + 1) for member in _member(tree, "value", list)))
    if kind == "record":
        keys = _parse(_member(tree, "keys", dict), depth + 1)
        values, optional = _field(_member(tree, "values", dict), depth)
        _check_record_keys(keys)
        if optional:
            raise InvalidValidator("Records cannot have optional values")
        return RecordValidator(keys, values)
    names = ", ".join(f"`{name}`" for name in (*_SIMPLE, *_COMPOSITE))
    raise InvalidValidator(f"unknown variant `{kind}`, expected one of {names}")


def parse(tree: Any) -> Validator:
    """Parse a validator's JSON tree.

    :raises InvalidValidator: when it is malformed; ``InvalidValue`` for a bad literal.
    """
    return _parse(tree, 0)


@lru_cache(maxsize=4096)
def parse_text(text: str) -> Validator:
    """Parse the JSON text of a validator, as ``exportArgs`` and ``exportReturns`` give it; equal texts share one validator.

    :raises InvalidValidator: also when *text* is not JSON.
    """
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidValidator(str(error)) from None
    return _parse(tree, 0)


def parse_args(text: str) -> Validator:
    """Like :func:`parse_text` for ``exportArgs``: only objects and ``any`` describe arguments.

    :raises InvalidValidator: ``Args validator must be an object or any`` for others.
    """
    validator = parse_text(text)
    if not isinstance(validator, (ObjectValidator, AnyValidator)):
        raise InvalidValidator("Args validator must be an object or any")
    return validator


def parse_returns(text: str) -> Validator | None:
    """Like :func:`parse_text` for ``exportReturns``, where ``null`` means that the result is not validated."""
    return None if text.strip() == "null" else parse_text(text)


def validate_args(validator: Validator | None, args: list[Value], names: TableNames) -> str | None:
    """Check a call's arguments.

    :param validator: ``None`` or ``any`` accepts whatever comes.
    :param args: the positional arguments, of which there should be one object.
    :returns: the error text, with its prefix ``ArgumentValidationError: ``, or ``None``.
    """
    if validator is None or validator is ANY:
        return None
    if len(args) == 1:
        value = args[0]
        if validator.matches(value, names):
            return None
        if type(value) is dict:
            return f"ArgumentValidationError: {validator.explain(value, names, '')}"
        return (
            "ArgumentValidationError: Expected to receive an object as the function's argument. "
            f"Instead received: {value_text(value)}"
        )
    return (
        "ArgumentValidationError: Expected to receive a single object as the function's argument. "
        f"Instead received {len(args)} arguments: {value_text(args)}"
    )


def validate_returns(validator: Validator | None, value: Value, names: TableNames) -> str | None:
    """:returns: the error text of a function's result, with its prefix ``ReturnsValidationError: ``, or ``None``."""
    if validator is None or validator.matches(value, names):
        return None
    return f"ReturnsValidationError: {validator.explain(value, names, '')}"
