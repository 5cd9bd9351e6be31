"""The JSON form of values: strict decoding, canonical encoding, formats of the HTTP API."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.errors import BadRequest
from convex_backend.values import json_codec
from convex_backend.values.json_codec import check_format, dumps, encode, from_json, loads, reencode, to_json
from convex_backend.values.kinds import COMMIT_TS, UNDEFINED, InvalidValue, type_name
from convex_backend.values.sort_key import compare
from tests.values.strategies import values

NAN = float("nan")
INF = float("inf")

VECTORS = [
    (0, {"$integer": "AAAAAAAAAAA="}),
    (1, {"$integer": "AQAAAAAAAAA="}),
    (-1, {"$integer": "//////////8="}),
    (2**63 - 1, {"$integer": "/////////38="}),
    (-(2**63), {"$integer": "AAAAAAAAAIA="}),
    (NAN, {"$float": "AAAAAAAA+H8="}),
    (INF, {"$float": "AAAAAAAA8H8="}),
    (-INF, {"$float": "AAAAAAAA8P8="}),
    (-0.0, {"$float": "AAAAAAAAAIA="}),
    (0.0, 0.0),
    (1.5, 1.5),
    (b"", {"$bytes": ""}),
    (b"\xff\x00", {"$bytes": "/wA="}),
    (None, None),
    (True, True),
    (False, False),
    ("é", "é"),
    ([1.0, [b"a"]], [1.0, [{"$bytes": "YQ=="}]]),
    ({"a": {"b": 1}}, {"a": {"b": {"$integer": "AQAAAAAAAAA="}}}),
]


def same(left: Any, right: Any) -> bool:
    """Equality of values by their total order, which tells -0 from 0 and knows NaN."""
    return compare(left, right) == 0


@pytest.mark.parametrize(("value", "tree"), VECTORS)
def test_vectors(value: Any, tree: Any) -> None:
    """Each kind of value has its one JSON form."""
    assert to_json(value) == tree
    assert same(loads(orjson.dumps(tree)), value)
    assert same(loads(dumps(value)), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-0", -0.0),
        ("-0.0", -0.0),
        ('{"a":[-0, "-0,", -0]}', {"a": [-0.0, "-0,", -0.0]}),
        ('[-0,1,"é\\ud83d\\ude00"]', [-0.0, 1.0, "é😀"]),
        ("9007199254740993", 9007199254740992.0),
        ("18446744073709551616", 18446744073709551616.0),
        ('{"$float":"AAAAAAAAAAA="}', 0.0),
        ('{"":1}', {"": 1.0}),
    ],
)
def test_numbers_are_float64(text: str, value: Any) -> None:
    """Every JSON number is a float64, minus zero keeps its sign, as text or bytes."""
    assert same(loads(text), value)
    assert same(loads(text.encode()), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"$x":1}', "Field name $x starts with '$', which is reserved."),
        ('{"a":{"$":1}}', "Field name $ starts with '$', which is reserved."),
        ('{"$integer":"AQAAAAAAAAA=","a":1}', "Field name $integer starts with '$', which is reserved."),
        ('{"$set":[]}', "Field name $set starts with '$', which is reserved."),
        ('{"$undefined":null}', "Field name $undefined starts with '$', which is reserved."),
        ('[{"$commitTs":null}]', "Field name $commitTs starts with '$', which is reserved."),
        (
            '{"é":1}',
            "Field name é has invalid character 'é': Field names can only contain non-control ASCII characters",
        ),
        (
            '{"a\\nb":1}',
            "Field name a\nb has invalid character '\\n': Field names can only contain non-control ASCII characters",
        ),
        (
            '{"\\u007f":1}',
            "Field name \x7f has invalid character '\\u{7f}': Field names can only contain non-control ASCII characters",
        ),
        (json.dumps({"a" * 1025: 1}), "Field name is too long (1025 > maximum 1024)"),
        ('{"$float":"AAAAAAAA8D8="}', "Float64 1.0 should be encoded as a number"),
        ('{"$integer":"AQAAAA=="}', "$integer must be 8 bytes, got 4"),
        ('{"$float":"AQAAAA=="}', "$float must be 8 bytes, got 4"),
        ('{"$integer":1}', "$integer must be a base64-encoded string"),
        (json.dumps([0] * 8193), "Array length is too long (8193 > maximum length 8192)"),
        (
            json.dumps({f"f{n}": 0 for n in range(1025)}),
            "Object has too many fields (1025 > maximum number 1024)",
        ),
        ("[" * 65 + "]" * 65, "Value is too nested (nested 65 levels deep > maximum nesting 64)"),
        ('{"a":' * 65 + "1" + "}" * 65, "Value is too nested (nested 65 levels deep > maximum nesting 64)"),
        ("[" * 900 + "-0" + "]" * 900, "Value is too nested (nested 65 levels deep > maximum nesting 64)"),
    ],
)
def test_reject_texts(text: str, message: str) -> None:
    """What is not a value is refused with its text."""
    with pytest.raises(InvalidValue) as caught:
        loads(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", '"\\ud800"', b'"\xff"', '{"$bytes":"YQ"}', '{"$bytes":"Y Q=="}', '{"$bytes":"-_8="}', "1e999"],
)
def test_malformed_text(text: str | bytes) -> None:
    """Text that is not strict JSON, unpaired surrogates and sloppy base64 are refused."""
    with pytest.raises(InvalidValue):
        loads(text)


def test_limits_are_inclusive() -> None:
    """A value exactly at the limits decodes."""
    assert loads("[" * 64 + "]" * 64)
    assert len(loads(json.dumps([0] * 8192))) == 8192
    assert len(loads(json.dumps({f"f{n}": 0 for n in range(1024)}))) == 1024
    assert loads(json.dumps({"a" * 1024: 1}))


def test_undefined_where_allowed() -> None:
    """The undefined marker may stand for the value or a direct member, not deeper."""
    assert loads('{"$undefined":null}', allow_undefined=True) is UNDEFINED
    assert loads('{"a":{"$undefined":null},"b":1,"c":{"$bytes":""}}', allow_undefined=True) == {
        "a": UNDEFINED,
        "b": 1.0,
        "c": b"",
    }
    for text in ('{"a":{"b":{"$undefined":null}}}', '[{"$undefined":null}]', '{"a":{"$undefined":1}}'):
        with pytest.raises(InvalidValue, match=r"\$undefined starts"):
            loads(text, allow_undefined=True)
    with pytest.raises(InvalidValue, match=r"\$x starts"):
        loads('{"$x":{"$undefined":null}}', allow_undefined=True)


def test_commit_timestamp_where_allowed() -> None:
    """The commit timestamp placeholder may stand anywhere when the caller allows it."""
    tree = {"a": [{"$commitTs": None}], "b": {"c": {"$commitTs": None}}}
    value = from_json(json.loads(json.dumps(tree)), allow_commit_ts=True)
    assert value == {"a": [COMMIT_TS], "b": {"c": COMMIT_TS}}
    assert to_json(value) == tree
    with pytest.raises(InvalidValue):
        loads('{"$commitTs":1}', allow_commit_ts=True)


def test_canonical_text() -> None:
    """Keys are sorted by bytes at every level and no whitespace is printed."""
    assert dumps({"b": [1.0, {"z": None, "B": True, "a": ""}], "a": 1e21}) == (
        b'{"a":1e+21,"b":[1.0,{"B":true,"a":"","z":null}]}'
    )


def test_printed_text_takes_no_more_memory_than_its_length() -> None:
    """A thousand kept texts of some 100 bytes take some 100 KB, not the room that each was printed into."""
    value = {"text": "x" * 90}
    tracemalloc.start()
    try:
        kept = [dumps(value) for _ in range(1000)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept[0]) > 100
    assert taken < 300_000


def test_encoding_leaves_the_value_alone() -> None:
    """Encoding a value with special members does not change it."""
    value = {"a": [1, 2.0], "b": b"x", "c": 1.0}
    dumps(value)
    assert value == {"a": [1, 2.0], "b": b"x", "c": 1.0}


def test_a_python_object_is_not_a_value() -> None:
    """Foreign objects are a fault, not JSON."""
    with pytest.raises(TypeError, match="not a Convex value: set"):
        dumps({"a": {1}})  # type: ignore[dict-item]


def test_known_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of checked names does not grow without end, and keeps no long ones."""
    monkeypatch.setattr(json_codec, "_KNOWN_NAMES_LIMIT", 10)
    monkeypatch.setattr(json_codec, "_known_names", set())
    for n in range(100):
        loads(json.dumps({f"name{n}": n, f"{n}" * 65: n}))
    assert 0 < len(json_codec._known_names) <= 10
    assert all(len(name) <= 64 for name in json_codec._known_names)


@settings(max_examples=300)
@given(values)
def test_round_trip(value: Any) -> None:
    """Every value survives its canonical text, and the text is a fixed point."""
    text = dumps(value)
    decoded = loads(text)
    assert same(decoded, value)
    assert dumps(decoded) == text
    assert same(loads(text.decode()), value)


@settings(max_examples=300)
@given(values)
def test_javascript_reads_the_same(value: Any) -> None:
    """A strict JSON reader with IEEE doubles sees the tree that ``to_json`` gives."""
    assert json.loads(dumps(value), parse_constant=lambda name: pytest.fail(name)) == to_json(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["$integer", "$bytes", "$float", "$undefined", "a", "", "é"]), inner, max_size=2
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_a_value_or_refused(tree: Any) -> None:
    """Whatever JSON comes in, the answer is a value or ``InvalidValue``."""
    try:
        value = loads(json.dumps(tree))
    except InvalidValue:
        return
    assert same(loads(dumps(value)), value)


FORMAT_CASES = [
    (1, {"$integer": "AQAAAAAAAAA="}, "1", 1),
    (-(2**63), {"$integer": "AAAAAAAAAIA="}, "-9223372036854775808", -(2**63)),
    (b"hi", {"$bytes": "aGk="}, "aGk=", {"$bytes": "aGk="}),
    (NAN, {"$float": "AAAAAAAA+H8="}, "NaN", {"$float": "AAAAAAAA+H8="}),
    (INF, {"$float": "AAAAAAAA8H8="}, "Infinity", {"$float": "AAAAAAAA8H8="}),
    (-INF, {"$float": "AAAAAAAA8P8="}, "-Infinity", {"$float": "AAAAAAAA8P8="}),
    (1.5, 1.5, 1.5, 1.5),
    ("$", "$", "$", "$"),
]


@pytest.mark.parametrize(("value", "encoded", "clean", "export"), FORMAT_CASES)
def test_formats(value: Any, encoded: Any, clean: Any, export: Any) -> None:
    """Each format of the HTTP API has its own form of int64, bytes and special floats."""
    for name, expected in (
        ("convex_encoded_json", encoded),
        ("convex_json", encoded),
        ("json", clean),
        ("convex_clean_json", clean),
        ("export_json", export),
    ):
        assert encode(value, name) == expected
        assert encode({"a": [value]}, name) == {"a": [expected]}
        assert orjson.loads(reencode(dumps([value]), name)) == [expected]


def test_minus_zero_in_clean_formats() -> None:
    """Minus zero is a plain number with its sign in the clean and the export format."""
    for name in ("json", "export_json"):
        assert reencode(dumps({"a": -0.0}), name) == b'{"a":-0.0}'
        assert math.copysign(1, encode(-0.0, name)) == -1


@pytest.mark.parametrize("name", ["", "JSON", "xml"])
def test_unknown_format(name: str) -> None:
    """An unknown format is a bad request."""
    for call in (lambda: encode(1.0, name), lambda: reencode(b"1", name), lambda: check_format(name)):
        with pytest.raises(BadRequest) as caught:
            call()
        assert caught.value.code == "BadFormat"


def test_type_names() -> None:
    """Type names of messages."""
    names = [type_name(value) for value in (None, 1, 1.0, True, "", b"", [], {}, UNDEFINED)]
    assert names == ["Null", "Int64", "Float64", "Boolean", "String", "Bytes", "Array", "Object", "undefined"]
    with pytest.raises(TypeError):
        bool(UNDEFINED)


def test_nan_payload_is_kept() -> None:
    """A NaN with a payload keeps its bits."""
    bits = struct.pack("<Q", 0x7FF8000000000123)
    value = struct.unpack("<d", bits)[0]
    assert struct.pack("<d", loads(dumps(value))) == bits
