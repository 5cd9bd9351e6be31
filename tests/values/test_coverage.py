"""Which types take all that another one takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convex_backend.values.coverage import covers
from convex_backend.values.json_codec import from_json
from convex_backend.values.validators import parse
from tests.values.names import NAMES, USER_ID

STRING: Any = {"type": "string"}
NUMBER: Any = {"type": "number"}
BIGINT: Any = {"type": "bigint"}
ANY: Any = {"type": "any"}


def literal(value: Any) -> Any:
    return {"type": "literal", "value": value}


def union(*members: Any) -> Any:
    return {"type": "union", "value": list(members)}


def array(element: Any) -> Any:
    return {"type": "array", "value": element}


def record(keys: Any, values: Any) -> Any:
    return {"type": "record", "keys": keys, "values": {"fieldType": values, "optional": False}}


def fields(**members: Any) -> Any:
    """An object; a member in a list is optional."""
    made = {
        name: {"fieldType": kind[0] if isinstance(kind, list) else kind, "optional": isinstance(kind, list)}
        for name, kind in members.items()
    }
    return {"type": "object", "value": made}


@pytest.mark.parametrize(
    ("wider", "narrower", "expected"),
    [
        (ANY, fields(a=STRING), True),
        (fields(a=STRING), ANY, False),
        (fields(a=STRING, b=[NUMBER]), fields(a=STRING), True),
        (fields(a=STRING, b=NUMBER), fields(a=STRING), False),
        (fields(a=STRING), fields(a=STRING, b=[NUMBER]), False),
        (fields(a=[STRING]), fields(a=STRING), True),
        (fields(a=STRING), fields(a=[STRING]), False),
        (fields(a=union(STRING, NUMBER)), fields(a=STRING), True),
        (fields(a=STRING), fields(a=union(STRING, NUMBER)), False),
        (union(fields(a=STRING), fields(b=STRING)), fields(b=STRING), True),
        (union(fields(a=STRING), fields(b=STRING)), union(fields(b=STRING), fields(a=STRING)), True),
        (STRING, literal("x"), True),
        (NUMBER, literal("x"), False),
        (union(literal("x"), literal("y")), literal("y"), True),
        (literal("x"), STRING, False),
        (STRING, {"type": "id", "tableName": "users"}, True),
        ({"type": "id", "tableName": "users"}, STRING, False),
        ({"type": "id", "tableName": "users"}, {"type": "id", "tableName": "posts"}, False),
        ({"type": "commitTs"}, BIGINT, True),
        (BIGINT, {"type": "commitTs"}, True),
        (BIGINT, NUMBER, False),
        (array(union(STRING, NUMBER)), array(STRING), True),
        (array(STRING), array(NUMBER), False),
        (record(STRING, ANY), record(STRING, NUMBER), True),
        (record(STRING, NUMBER), record(STRING, ANY), False),
        (fields(_id=[NUMBER], a=STRING), fields(a=STRING), False),
        (union(), STRING, False),
        (STRING, union(), True),
    ],
)
def test_pairs(wider: Any, narrower: Any, expected: bool) -> None:
    """Optional fields may be added, fields made optional, unions and literals widened; the other way documents must be read."""
    assert covers(parse(wider), parse(narrower)) is expected


_scalars = st.sampled_from(
    [
        STRING,
        NUMBER,
        BIGINT,
        ANY,
        {"type": "null"},
        {"type": "boolean"},
        {"type": "commitTs"},
        {"type": "id", "tableName": "users"},
        literal("x"),
        literal(1.0),
        literal(True),
        literal({"$integer": "AQAAAAAAAAA="}),
    ]
)
_types = st.recursive(
    _scalars,
    lambda inner: (
        st.builds(array, inner)
        | st.lists(inner, max_size=3).map(lambda members: union(*members))
        | st.builds(record, st.just(STRING), inner)
        | st.dictionaries(st.sampled_from("ab"), inner | inner.map(lambda kind: [kind]), max_size=2).map(
            lambda members: fields(**members)
        )
    ),
    max_leaves=6,
)
_values = st.recursive(
    st.sampled_from([None, True, False, "x", "y", USER_ID, 1.0, 2.0, {"$integer": "AQAAAAAAAAA="}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=5,
)


@given(_types, _types, st.lists(_values, min_size=1, max_size=12))
def test_a_yes_is_never_wrong(wider: Any, narrower: Any, trees: list[Any]) -> None:
    """Whatever fits the narrower type fits the one that covers it; each type covers itself."""
    wide, narrow = parse(wider), parse(narrower)
    assert covers(narrow, narrow)
    if covers(wide, narrow):
        for tree in trees:
            value = from_json(tree)
            assert not narrow.matches(value, NAMES) or wide.matches(value, NAMES)
