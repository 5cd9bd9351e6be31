"""Sort keys: byte order is value order."""

from __future__ import annotations

import random
import struct
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.values.kinds import COMMIT_TS, UNDEFINED, type_name
from convex_backend.values.sort_key import compare, decode_key, encode_key, encode_value, successor
from tests.values.strategies import values

RANKS = ["undefined", "Null", "Int64", "Float64", "Boolean", "String", "Bytes", "Array", "Object"]


def model_compare(left: Any, right: Any) -> int:
    """The order of ``runtime.md`` section 4.4, written without any encoding."""
    rank = RANKS.index(type_name(left)) - RANKS.index(type_name(right))
    if rank:
        return rank
    if isinstance(left, float):
        first, second = (struct.unpack(">q", struct.pack(">d", number))[0] for number in (left, right))
        first, second = (bits if bits >= 0 else bits ^ 0x7FFFFFFFFFFFFFFF for bits in (first, second))
        return (first > second) - (first < second)
    if isinstance(left, dict):
        left, right = ([part for name in sorted(value) for part in (name, value[name])] for value in (left, right))
    if isinstance(left, list):
        for one, other in zip(left, right, strict=False):
            if order := model_compare(one, other):
                return order
        return len(left) - len(right)
    if isinstance(left, str):
        left, right = left.encode(), right.encode()
    if left is None or left is UNDEFINED:
        return 0
    return (left > right) - (left < right)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, "07ff"),
        (300, "0a012c"),
        (1.5, "0dbff8000000000000"),
        (-0.0, "0d7fffffffffffffff"),
        ("a\0b", "106100ff6200"),
        ([1.0, "x"], "120dbff000000000000010780000"),
        ({"a": 1, "b": None}, "156100090162000300"),
        (UNDEFINED, "01"),
        (None, "03"),
        (0, "08"),
        (1, "0901"),
        (-129, "06ff7f"),
        (2**63 - 1, "0c7fffffffffffffff"),
        (-(2**63), "048000000000000000"),
        (False, "0e"),
        (True, "0f"),
        (b"\0", "1100ff00"),
        ({}, "1500"),
        ({"": None}, "1500ff0300"),
    ],
)
def test_vectors(value: Any, expected: str) -> None:
    """Published encodings, both ways."""
    assert encode_value(value).hex() == expected
    (decoded,) = decode_key(bytes.fromhex(expected))
    assert compare(decoded, value) == 0
    assert type(decoded) is type(value)


def test_documented_order() -> None:
    """The chain of types and the corner cases of each, in order."""
    nan = float("nan")
    minus_nan = struct.unpack(">d", bytes.fromhex("fff8000000000000"))[0]
    chain = [
        *(UNDEFINED, None, -(2**63), -1, 0, 1, 255, 256, 2**63 - 1),
        *(minus_nan, float("-inf"), -1.0, -0.0, 0.0, 5e-324, 1.0, float("inf"), nan),
        *(False, True, "", "\0", "\0a", "a", "a\0", "a\0b", "aa", "\uffff", "\U00010000"),
        *(b"", b"\0", b"\xff", [], [None], [None, None], [1.0], [[]]),
        *({}, {"": None}, {"": None, "a": None}, {"a": None}, {"a": None, "b": None}, {"a": 1}, {"aa": None}),
    ]
    keys = [encode_value(value) for value in chain]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert sorted(random.Random(1).sample(chain, len(chain)), key=cmp_to_key(compare)) == chain


@settings(max_examples=400)
@given(values, values)
def test_byte_order_is_value_order(left: Any, right: Any) -> None:
    """The order of bytes equals a model of the order of values."""
    order = model_compare(left, right)
    assert compare(left, right) == (order > 0) - (order < 0)


@settings(max_examples=200)
@given(st.lists(values | st.just(UNDEFINED), max_size=4))
def test_round_trip(key: list[Any]) -> None:
    """A key of several values decodes to them."""
    decoded = decode_key(encode_key(key))
    assert len(decoded) == len(key)
    assert all(model_compare(one, other) == 0 for one, other in zip(decoded, key, strict=True))


@settings(max_examples=300)
@given(st.lists(values, min_size=1, max_size=2), st.lists(values, min_size=1, max_size=2), values)
def test_successor_bounds_exactly_the_prefix(prefix: list[Any], other: list[Any], tail: Any) -> None:
    """``[prefix, successor)`` holds every key that goes on from the prefix, and no other key."""
    lower = encode_key(prefix)
    upper = successor(lower)
    assert lower <= encode_key([*prefix, tail]) < upper
    key = encode_key([*other, tail])
    starts = len(other) + 1 >= len(prefix) and all(
        model_compare(one, two) == 0 for one, two in zip(prefix, [*other, tail], strict=False)
    )
    assert (lower <= key < upper) == starts


@pytest.mark.parametrize(("prefix", "outside"), [("a", "a\0"), ("a", "a\0b"), (b"", b"\0"), ({}, {"": None})])
def test_successor_and_escapes(prefix: Any, outside: Any) -> None:
    """A value that goes on with an escaped zero is outside the bounds of the shorter one."""
    assert encode_value(outside) > successor(encode_value(prefix))


def test_successor_of_nothing() -> None:
    """Every key is below the successor of the empty prefix."""
    assert encode_value({"zz": 1}) < successor(b"")


@pytest.mark.parametrize("data", ["0d00", "0c01", "106100ff", "10", "1210", "1561", "02", "16", "156100", "10ff00"])
def test_decode_refuses_other_bytes(data: str) -> None:
    """Truncated or unknown bytes raise ``ValueError``."""
    with pytest.raises(ValueError):
        decode_key(bytes.fromhex(data))


@given(st.binary(max_size=12))
def test_decode_never_fails_otherwise(data: bytes) -> None:
    """Any bytes decode or raise ``ValueError``."""
    try:
        decode_key(data)
    except ValueError:
        return


def test_commit_timestamp_sorts_as_the_largest_int64() -> None:
    """The placeholder has the place of the largest int64 until it is resolved."""
    assert encode_value(COMMIT_TS) == encode_value(2**63 - 1)
    assert encode_value([COMMIT_TS]) == encode_value([2**63 - 1])
