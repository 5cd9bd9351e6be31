"""Whether one validator takes every stored value that another one takes: then documents need not be read again when the type of their table changes.

The answer errs on the side of "no". Source: ``push.md`` section 13 (``supersetOfEnforced``).
"""

from __future__ import annotations

from convex_backend.values.limits import SYSTEM_FIELDS
from convex_backend.values.validator_kinds import (
    AnyValidator,
    ArrayValidator,
    IdValidator,
    LiteralValidator,
    ObjectValidator,
    RecordValidator,
    TypeValidator,
    UnionValidator,
    Validator,
)

_LITERAL_TYPES = {str: "string", bool: "boolean", int: "bigint", float: "number"}
#: JSON types whose stored values are the same: a commit timestamp is resolved when it is stored.
_INTEGERS = frozenset(("bigint", "commitTs"))


def covers(wider: Validator, narrower: Validator) -> bool:
    """:returns: whether every stored value that fits *narrower* surely fits *wider*."""
    if isinstance(wider, AnyValidator) or wider == narrower:
        return True
    if isinstance(narrower, UnionValidator):
        return all(covers(wider, member) for member in narrower.members)
    if isinstance(wider, UnionValidator):
        return any(covers(member, narrower) for member in wider.members)
    if isinstance(wider, TypeValidator):
        return _type_covers(wider.json_type, narrower)
    if isinstance(wider, ArrayValidator):
        return isinstance(narrower, ArrayValidator) and covers(wider.element, narrower.element)
    if isinstance(wider, RecordValidator):
        return (
            isinstance(narrower, RecordValidator)
            and covers(wider.keys, narrower.keys)
            and covers(wider.values, narrower.values)
        )
    return (
        isinstance(wider, ObjectValidator) and isinstance(narrower, ObjectValidator) and _fields_cover(wider, narrower)
    )


def _type_covers(json_type: str, narrower: Validator) -> bool:
    if isinstance(narrower, TypeValidator):
        return narrower.json_type == json_type or {narrower.json_type, json_type} <= _INTEGERS
    if isinstance(narrower, LiteralValidator):
        named = _LITERAL_TYPES[type(narrower.literal)]
        return named == json_type or {named, json_type} <= _INTEGERS
    return isinstance(narrower, IdValidator) and json_type == "string"


def _fields_cover(wider: ObjectValidator, narrower: ObjectValidator) -> bool:
    if not SYSTEM_FIELDS.intersection(wider.fields) <= narrower.fields.keys():
        return False  # documents have them, though the narrower one does not say of what type
    for name, (kind, optional) in narrower.fields.items():
        found = wider.fields.get(name)
        if found is None or not covers(found[0], kind) or (optional and not found[1]):
            return False
    return all(optional or name in narrower.fields for name, (_, optional) in wider.fields.items())
