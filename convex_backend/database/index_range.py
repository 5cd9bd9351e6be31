"""From the ``range`` of a query to one interval of index keys.

Source: ``runtime.md`` sections 3.1 and 3.2.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from convex_backend.database.catalog import IndexInfo
from convex_backend.errors import BadRequest
from convex_backend.values.ids import encode_id
from convex_backend.values.json_codec import from_json
from convex_backend.values.kinds import COMMIT_TS, INT64_MAX, InvalidValue
from convex_backend.values.sort_key import encode_value, successor
from convex_backend.values.text import string_text, value_text

#: Half-open: inclusive lower bound, exclusive upper bound (``None``: no bound).
KeyRange = tuple[bytes, bytes | None]

#: An interval without keys.
EMPTY: Final[KeyRange] = (b"", b"")

_COMPARATORS: Final = {"Eq": "==", "Gt": ">", "Gte": ">=", "Lt": "<", "Lte": "<="}
_SEE: Final = "For more information see https://docs.convex.dev/using/indexes."


def _names(fields: list[str] | tuple[str, ...]) -> str:
    return "[" + ", ".join(string_text(field) for field in fields) + "]"


def _already_defined(kind: str, field: str, comparator: str, value: Any) -> BadRequest:
    return BadRequest(
        "AlreadyDefinedBound",
        f"Already defined {kind} bound in index range. "
        f"Can't add {string_text(field)} {comparator} {value_text(value)}.",
    )


def trim_path(path: str) -> str:
    """A field path as the query means it: dots at its ends do not count."""
    return path.strip(".")


def range_value(tree: Any) -> Any:
    """A value of a range: ``undefined`` is one, the commit timestamp sorts as the largest int64.

    :raises BadRequest: it is not a value.
    """
    if type(tree) in (dict, list):
        tree = orjson.loads(orjson.dumps(tree))  # decoding consumes its containers, and the query is looked at again
    try:
        value = from_json(tree, allow_undefined=True, allow_commit_ts=True)
    except InvalidValue as error:
        raise BadRequest(error.code, error.message) from None
    return INT64_MAX if value is COMMIT_TS else value


class _Bounds:
    """The expressions of a range, sorted out."""

    def __init__(self) -> None:
        self.equal: dict[str, Any] = {}
        self.lower: tuple[str, bool, Any] | None = None
        self.upper: tuple[str, bool, Any] | None = None

    @property
    def inequality_field(self) -> str | None:
        bound = self.lower or self.upper
        return bound[0] if bound is not None else None

    def add(self, kind: str, field: str, value: Any) -> None:
        comparator = _COMPARATORS[kind]
        if kind == "Eq":
            if field in self.equal:
                raise _already_defined("equality", field, comparator, value)
            if any(bound is not None and bound[0] == field for bound in (self.lower, self.upper)):
                raise _already_defined("inequality", field, comparator, value)
            self.equal[field] = value
        else:
            if field in self.equal:
                raise _already_defined("equality", field, comparator, value)
            is_lower = kind in ("Gt", "Gte")
            if is_lower and self.lower is not None:
                raise _already_defined("lower", field, comparator, value)
            if not is_lower and self.upper is not None:
                raise _already_defined("upper", field, comparator, value)
            bound = (field, kind in ("Gte", "Lte"), value)
            if is_lower:
                self.lower = bound
            else:
                self.upper = bound


def plan_range(table: str, number: int, index: IndexInfo, range: list[Any]) -> KeyRange:
    """The keys that a range of ``{"type", "fieldPath", "value"}`` expressions selects.

    :param number: the table's number, which makes the ids of a range over ``by_id``.
    :raises BadRequest: with the codes and texts of section 3.2.
    """
    if not range:
        return b"", None
    bounds = _Bounds()
    for expression in range:
        bounds.add(expression["type"], trim_path(expression["fieldPath"]), range_value(expression["value"]))

    name = f"{table}.{index.name}"
    if bounds.lower is not None and bounds.upper is not None and bounds.lower[0] != bounds.upper[0]:
        raise BadRequest(
            "BoundsOnMultipleFields",
            "Upper and lower bounds in `range` can only be applied to a single index field. This query against index "
            f"{name} attempted to set a range bound on both {string_text(bounds.lower[0])} and "
            f"{string_text(bounds.upper[0])}. Consider using `filter` instead. See "
            "https://docs.convex.dev/using/indexes for more info.",
        )

    queried = list(bounds.equal)
    if bounds.inequality_field is not None:
        queried.append(bounds.inequality_field)
    fields = index.fields if index.fields[-1] == "_id" else (*index.fields, "_id")
    for field in queried:
        if field not in fields:
            raise BadRequest(
                "FieldNotInIndex",
                f"The index range included a comparison with {string_text(field)}, but {name} with fields "
                f"{_names(index.fields)} doesn't index this field. {_SEE}",
            )
    prefix = fields[: len(bounds.equal)]
    wrong = next((field for field in bounds.equal if field not in prefix), None)
    inequality = bounds.inequality_field
    if wrong is None and inequality is not None and fields[len(prefix)] != inequality:
        wrong = inequality
    if wrong is not None:
        raise BadRequest(
            "InvalidIndexRange",
            f"Tried to query index {name} but the query didn't use the index fields in order.\n"
            f"Index fields: {_names(index.fields)}\nQuery fields: {_names(queried)}\n"
            f"First incorrect field: {string_text(wrong)}\n{_SEE}",
        )
    if index.fields == ("_id",):
        return _id_range(number, bounds)
    return _interval(
        b"".join([encode_value(bounds.equal[field]) for field in prefix]), bounds, len(prefix) == len(fields)
    )


def _interval(prefix: bytes, bounds: _Bounds, complete: bool) -> KeyRange:
    if complete:
        return prefix, prefix + b"\x00"
    lower = prefix
    upper: bytes | None = successor(prefix) if prefix else None
    if bounds.lower is not None:
        _, inclusive, value = bounds.lower
        edge = prefix + encode_value(value)
        lower = edge if inclusive else successor(edge)
    if bounds.upper is not None:
        _, inclusive, value = bounds.upper
        edge = prefix + encode_value(value)
        upper = successor(edge) if inclusive else edge
    return lower, upper


def _id_range(number: int, bounds: _Bounds) -> KeyRange:
    """The range of internal ids whose texts lie in a range over ``by_id``, whose keys are the internal ids themselves."""
    string_bounds = _interval(b"", bounds, False)
    if "_id" in bounds.equal:
        edge = encode_value(bounds.equal["_id"])
        string_bounds = edge, successor(edge)
    lower = _first_id(number, string_bounds[0])
    upper = None if string_bounds[1] is None else _first_id(number, string_bounds[1])
    if lower is None:
        return EMPTY
    return lower, upper


def _first_id(number: int, bound: bytes) -> bytes | None:
    """The least internal id whose text's sort key is at least *bound*; ``None`` when there is none.

    The texts of one table have one length and order like the internal ids, so this is a binary search over all 2^128 of them.
    """
    low, high = 0, 1 << 128
    while low < high:
        middle = (low + high) >> 1
        if encode_value(encode_id(number, middle.to_bytes(16, "big"))) < bound:
            low = middle + 1
        else:
            high = middle
    return low.to_bytes(16, "big") if low < 1 << 128 else None
