"""Validators: JSON, text form, matching, and the exact texts of faults (``runtime.md`` section 4.7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.values.kinds import COMMIT_TS
from convex_backend.values.validators import (
    ANY,
    InvalidValidator,
    Validator,
    parse,
    parse_args,
    parse_returns,
    parse_text,
    validate_args,
    validate_returns,
)
from tests.values.names import FILE_ID, MODULE_ID, NAMES, POST_ID, UNKNOWN_ID, USER_ID
from tests.values.strategies import values

STRING = {"type": "string"}
NUMBER = {"type": "number"}


def obj(**fields: Any) -> dict[str, Any]:
    """JSON of an object validator; a field given as a tuple is optional."""
    return {
        "type": "object",
        "value": {
            name: {"fieldType": field[0] if isinstance(field, tuple) else field, "optional": isinstance(field, tuple)}
            for name, field in fields.items()
        },
    }


def literal(value: Any) -> dict[str, Any]:
    """JSON of a literal validator."""
    return {"type": "literal", "value": value}


def record(keys: Any, members: Any, optional: bool = False) -> dict[str, Any]:
    """JSON of a record validator."""
    return {"type": "record", "keys": keys, "values": {"fieldType": members, "optional": optional}}


def array(element: Any) -> dict[str, Any]:
    """JSON of an array validator."""
    return {"type": "array", "value": element}


def union(*members: Any) -> dict[str, Any]:
    """JSON of a union validator."""
    return {"type": "union", "value": list(members)}


def table_id(name: str) -> dict[str, Any]:
    """JSON of an id validator."""
    return {"type": "id", "tableName": name}


TEXT_FORMS = [
    (table_id("users"), 'v.id("users")'),
    ({"type": "null"}, "v.null()"),
    ({"type": "boolean"}, "v.boolean()"),
    (STRING, "v.string()"),
    ({"type": "bytes"}, "v.bytes()"),
    ({"type": "any"}, "v.any()"),
    (NUMBER, "v.float64()"),
    ({"type": "bigint"}, "v.int64()"),
    ({"type": "commitTs"}, "v.commitTs()"),
    (literal("a"), 'v.literal("a")'),
    (literal(True), "v.literal(true)"),
    (literal(1), "v.literal(1.0)"),
    (literal(1.5), "v.literal(1.5)"),
    (literal({"$integer": "AQAAAAAAAAA="}), "v.literal(<bigint>)"),
    (literal({"$float": "AAAAAAAA8H8="}), "v.literal(<number>)"),
    (array(STRING), "v.array(v.string())"),
    (record(STRING, NUMBER), "v.record(v.string(), v.float64())"),
    (obj(g=(NUMBER,), f=STRING), "v.object({f: v.string(), g: v.optional(v.float64())})"),
    (obj(), "v.object({})"),
    (union(STRING, NUMBER), "v.union(v.string(), v.float64())"),
    (union(), "v.union()"),
]


@pytest.mark.parametrize(("tree", "text"), TEXT_FORMS)
def test_text_and_json(tree: Any, text: str) -> None:
    """Each validator prints as in messages and gives its JSON back."""
    validator = parse(tree)
    assert validator.text == text
    assert validator.to_json() == tree
    assert parse(validator.to_json()) == validator


def test_aliases_of_any() -> None:
    """The removed types ``map`` and ``set`` mean any."""
    assert parse({"type": "map", "keys": 1}) is ANY
    assert parse({"type": "set"}) is ANY


def test_equality_tells_literals_apart() -> None:
    """Literals whose text is the same are still different validators."""
    one, two = (parse(literal({"$integer": text})) for text in ("AQAAAAAAAAA=", "AgAAAAAAAAA="))
    assert one != two
    assert one != parse(literal(1))
    assert parse(literal(True)) != parse(literal(1))
    assert len({one, two, parse(one.to_json())}) == 2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (record(literal("a"), NUMBER), "Records cannot have string literal keys"),
        (record(union(STRING, literal("a")), NUMBER), "Records cannot have string literal keys"),
        (record(NUMBER, NUMBER), "Records can only have string keys. Found v.float64()."),
        (record(literal(1), NUMBER), "Records can only have string keys. Found v.literal(1.0)."),
        (record(STRING, NUMBER, optional=True), "Records cannot have optional values"),
        (literal(None), "null is not a valid literal: use a string, boolean, number or bigint"),
        (literal({"$bytes": ""}), 'b"" is not a valid literal: use a string, boolean, number or bigint'),
        ({"type": "array"}, "missing field `value`"),
        ({"type": "array", "value": []}, "`value` of a validator must be an object"),
        ({}, "missing field `type`"),
        (
            obj(**{"a-b": STRING}),
            "Identifier a-b has invalid character '-': "
            "Identifiers can only contain alphanumeric characters or underscores",
        ),
        (table_id(""), "Identifier cannot be empty"),
        ([], "a validator must be an object"),
        ({"type": "object", "value": {"a": STRING}}, "missing field `fieldType`"),
        (union("x"), "a validator must be an object"),
    ],
)
def test_malformed(tree: Any, message: str) -> None:
    """Malformed validators are refused with a text that names the fault."""
    with pytest.raises(InvalidValidator) as caught:
        parse(tree)
    assert caught.value.message == message


def test_unknown_type_lists_the_known() -> None:
    """An unknown type is named, with those that exist."""
    with pytest.raises(InvalidValidator, match=r"unknown variant `date`, expected one of `any`.*`union`"):
        parse({"type": "date"})


def test_too_deep() -> None:
    """A validator nested without end is refused, not a crash."""
    tree: Any = STRING
    for _ in range(300):
        tree = array(tree)
    with pytest.raises(InvalidValidator, match="too nested"):
        parse(tree)


MATCHES = [
    (table_id("users"), [USER_ID], [1.0, UNKNOWN_ID, POST_ID, MODULE_ID, "x", USER_ID.upper()]),
    (table_id("_storage"), [FILE_ID], [USER_ID]),
    ({"type": "null"}, [None], [False, 0.0, ""]),
    ({"type": "boolean"}, [True, False], [None, 1, 1.0]),
    (STRING, ["", "a"], [b"", None, ["a"]]),
    ({"type": "bytes"}, [b""], [""]),
    ({"type": "any"}, [None, 1, {"a": [b""]}], []),
    (NUMBER, [1.0, float("nan")], [1, True]),
    ({"type": "bigint"}, [1], [1.0, True]),
    ({"type": "commitTs"}, [1, COMMIT_TS], [1.0]),
    (literal("a"), ["a"], ["b", b"a", None]),
    (literal(0), [0.0], [-0.0, 0, False]),
    (literal(1), [1.0], [1, True]),
    (literal({"$integer": "AQAAAAAAAAA="}), [1], [1.0, True, 2]),
    (literal({"$float": "AAAAAAAA+H8="}), [float("nan")], [0.0]),
    (literal(True), [True], [False, 1, 1.0]),
    (array(NUMBER), [[], [1.0, 2.0]], [[1], {}, [1.0, None]]),
    (record(STRING, NUMBER), [{}, {"a": 1.0}], [{"a": 1}, []]),
    (record(table_id("users"), NUMBER), [{USER_ID: 1.0}], [{POST_ID: 1.0}, {"a": 1.0}]),
    (
        obj(a=NUMBER, b=(STRING,)),
        [{"a": 1.0}, {"a": 1.0, "b": ""}],
        [{}, {"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0}, []],
    ),
    (obj(), [{}], [{"a": 1.0}, {"_id": "x"}]),
    (union(STRING, NUMBER), ["", 1.0], [1, None]),
    (union(obj(a=STRING), obj(b=STRING)), [{"a": ""}, {"b": ""}], [{"a": "", "b": ""}, {}]),
    (union(), [], [None]),
]


@pytest.mark.parametrize(("tree", "good", "bad"), MATCHES)
def test_matching(tree: Any, good: list[Any], bad: list[Any]) -> None:
    """Values are matched by type, exactly; objects are closed."""
    validator = parse(tree)
    for value in good:
        assert validator.check(value, NAMES) is None
    for value in bad:
        assert validator.check(value, NAMES)


WHERE_USER = obj(user=obj(tags=array(STRING)))
FAULTS = [
    (STRING, 1.0, "Value does not match validator.\n\nValue: 1.0\nValidator: v.string()"),
    (
        WHERE_USER,
        {"user": {"tags": ["a", "b", "c", 1]}},
        "Value does not match validator.\nPath: .user.tags[3]\nValue: 1\nValidator: v.string()",
    ),
    (
        record(table_id("users"), NUMBER),
        {"a": 1.0},
        'Value does not match validator.\nPath: .keys()\nValue: "a"\nValidator: v.id("users")',
    ),
    (
        obj(r=record(STRING, NUMBER)),
        {"r": {"b": 1.0, "a": "x"}},
        'Value does not match validator.\nPath: .r.values()\nValue: "x"\nValidator: v.float64()',
    ),
    (
        obj(a=STRING, b=(NUMBER,)),
        {"z": 1.0},
        "Object is missing the required field `a`. Consider wrapping the field validator in `v.optional(...)` if this is "
        "expected.\n\nObject: {z: 1.0}\nValidator: v.object({a: v.string(), b: v.optional(v.float64())})",
    ),
    (
        obj(a=obj(b=STRING)),
        {"a": {}},
        "Object is missing the required field `b`. Consider wrapping the field validator in `v.optional(...)` if this is "
        "expected.\nPath: .a\nObject: {}\nValidator: v.object({b: v.string()})",
    ),
    (
        obj(a=STRING),
        {"a": "", "c": None, "b": None},
        "Object contains extra field `b` that is not in the validator.\n\n"
        'Object: {a: "", b: null, c: null}\nValidator: v.object({a: v.string()})',
    ),
    (
        obj(b=STRING, a=NUMBER),
        {"b": 1.0, "a": "x", "c": None},
        'Value does not match validator.\nPath: .a\nValue: "x"\nValidator: v.float64()',
    ),
    (literal("a"), "b", '`"b"` does not match literal validator `v.literal("a")`.'),
    (array(literal(1)), [2.0], "`2.0` does not match literal validator `v.literal(1.0)`.Path: [0]"),
    (
        table_id("users"),
        POST_ID,
        f'Found ID "{POST_ID}" from table `posts`, which does not match the table name in validator `v.id("users")`.',
    ),
    (
        obj(a=table_id("users")),
        {"a": POST_ID},
        f'Found ID "{POST_ID}" from table `posts`, which does not match the table name in validator '
        '`v.id("users")`.Path: .a',
    ),
    (
        table_id("users"),
        MODULE_ID,
        f'Found ID "{MODULE_ID}" from a system table, which does not match the table name in validator `v.id("users")`.',
    ),
    (
        table_id("users"),
        UNKNOWN_ID,
        f'Value does not match validator.\n\nValue: "{UNKNOWN_ID}"\nValidator: v.id("users")',
    ),
    (table_id("users"), "x", 'Value does not match validator.\n\nValue: "x"\nValidator: v.id("users")'),
    (
        union(obj(a=STRING), NUMBER),
        {"a": 1.0},
        "Value does not match validator.\n\nValue: {a: 1.0}\nValidator: v.union(v.object({a: v.string()}), v.float64())",
    ),
    (union(literal("a")), "b", '`"b"` does not match literal validator `v.literal("a")`.'),
    (array(STRING), "x", 'Value does not match validator.\n\nValue: "x"\nValidator: v.array(v.string())'),
    (obj(a=STRING), [], "Value does not match validator.\n\nValue: []\nValidator: v.object({a: v.string()})"),
    (union(), 1, "Value does not match validator.\n\nValue: 1\nValidator: v.union()"),
]


@pytest.mark.parametrize(("tree", "value", "text"), FAULTS)
def test_fault_texts(tree: Any, value: Any, text: str) -> None:
    """Each fault has its text, with the path to it."""
    assert parse(tree).check(value, NAMES) == text


def test_arguments() -> None:
    """Arguments are one object; the texts carry their prefix; unvalidated functions take anything."""
    validator = parse(obj(a=STRING))
    assert validate_args(validator, [{"a": ""}], NAMES) is None
    assert validate_args(None, [], NAMES) is None
    assert validate_args(ANY, [1.0, 2.0], NAMES) is None
    assert validate_args(validator, [{"a": 1.0}], NAMES) == (
        "ArgumentValidationError: Value does not match validator.\nPath: .a\nValue: 1.0\nValidator: v.string()"
    )
    assert validate_args(validator, [1.0], NAMES) == (
        "ArgumentValidationError: Expected to receive an object as the function's argument. Instead received: 1.0"
    )
    assert validate_args(validator, [{}, 1.0], NAMES) == (
        "ArgumentValidationError: Expected to receive a single object as the function's argument. "
        "Instead received 2 arguments: [{}, 1.0]"
    )


def test_returns() -> None:
    """A result that does not match has the prefix of returns."""
    validator = parse_returns('{"type":"null"}')
    assert validate_returns(validator, None, NAMES) is None
    assert validate_returns(None, 1.0, NAMES) is None
    assert parse_returns("null") is None
    assert validate_returns(validator, 1.0, NAMES) == (
        "ReturnsValidationError: Value does not match validator.\n\nValue: 1.0\nValidator: v.null()"
    )


def test_args_validator_kinds() -> None:
    """Only objects and any describe arguments; equal texts share one validator."""
    assert parse_args('{"type":"any"}') is ANY
    text = '{"type":"object","value":{}}'
    assert parse_args(text) is parse_text(text)
    for other in ('{"type":"string"}', '{"type":"union","value":[]}'):
        with pytest.raises(InvalidValidator, match="Args validator must be an object or any"):
            parse_args(other)
    with pytest.raises(InvalidValidator):
        parse_args("{")


def test_referenced_tables() -> None:
    """Every table of a ``v.id`` is found, wherever it stands."""
    tree = obj(
        a=array(table_id("users")), b=(union(table_id("posts"), STRING),), c=record(table_id("t3"), table_id("t4"))
    )
    assert parse(tree).referenced_tables() == {"users", "posts", "t3", "t4"}


validators = st.recursive(
    st.sampled_from([tree for tree, _ in TEXT_FORMS]),
    lambda inner: (
        st.builds(array, inner)
        | st.builds(lambda one, two: union(one, two), inner, inner)
        | st.builds(lambda one, two: obj(a=one, b=(two,)), inner, inner)
        | st.builds(lambda one: record(STRING, one), inner)
    ),
    max_leaves=6,
).map(parse)


@settings(max_examples=300)
@given(validators, values | st.fixed_dictionaries({"a": values}, optional={"b": values, "c": values}))
def test_match_and_explanation_agree(validator: Validator, value: Any) -> None:
    """A value matches exactly when ``check`` gives no text, and the explanation of a mismatch is never empty."""
    error = validator.check(value, NAMES)
    assert (error is None) == validator.matches(value, NAMES)
    if error is not None:
        assert error.startswith(("Value does not", "Object ", "`", "Found ID"))
